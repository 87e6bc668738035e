"""Multiple choice: the answer that the model finds most likely after the question.

Each answer's log-likelihood is taken as the continuation of the same prompt. `acc` takes the highest sum; `acc_norm`
the highest sum per character of the answer, since longer texts are less likely whatever they say (both as in
lm-evaluation-harness). No chat template is applied: the prompt is the same text for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, model_validator

from jobs.dataset.rendering import leading_tokens
from jobs.evaluation import likelihood
from jobs.evaluation.benchmark import Item, Loaded, Metric, Progress, checked, spread
from jobs.evaluation.files import Identified, Text, parse_lines, read_file, sha256
from jobs.evaluation.likelihood import Scored
from jobs.evaluation.settings import EvaluateSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT = "질문: {question}\n정답:"
CHANCE = 0.25
ACC = Metric("acc", "right answers, by likelihood", "right", binary=True, chance=CHANCE)
ACC_NORM = Metric("acc_norm", "right answers, by likelihood per character", "right_norm", binary=True, chance=CHANCE)


class Question(Identified):
    """One four-way question."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    subject: Text
    question: Text
    choices: Annotated[list[Text], Field(min_length=4, max_length=4)]
    answer: Annotated[int, Field(ge=0, le=3)]


class WrittenQuestion(Question):
    """One whose answers are told apart by their text."""

    @model_validator(mode="after")
    def _all_different(self) -> WrittenQuestion:
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("choices: two of them are the same")
        return self


@dataclass(frozen=True)
class MultipleChoice:
    """See `jobs.evaluation.benchmark.Benchmark`. `lay_out` gives a question's prompt and its four continuations."""

    name: str
    metrics: tuple[Metric, ...]
    questions: Sequence[Question]
    inputs: dict[str, str]
    batch_size: int
    lay_out: Callable[[Question], tuple[str, list[str]]]

    @property
    def preview(self) -> str:
        """The first question with the right continuation."""
        prompt, continuations = self.lay_out(self.questions[0])
        return prompt + continuations[self.questions[0].answer]

    def __len__(self) -> int:
        return len(self.questions)

    def run(self, loaded: Loaded, progress: Progress) -> list[Item]:
        """Score one model."""
        tokenizer = loaded.tokenizer
        assert isinstance(tokenizer.pad_token_id, int)
        laid_out = [self.lay_out(question) for question in self.questions]
        groups = [encode(tokenizer, prompt, continuations) for prompt, continuations in laid_out]
        found = likelihood.of_groups(loaded.model, groups, self.batch_size, tokenizer.pad_token_id, progress)
        return [
            checked(loaded, judge(question, continuations, values))
            for question, (_, continuations), values in zip(self.questions, laid_out, found, strict=True)
        ]


def choices(settings: EvaluateSettings) -> MultipleChoice:
    """The questions of `evaluate.choices`; what is scored is the answer's own text."""
    data = read_file(settings.choices, "evaluate.choices")
    return MultipleChoice(
        name="choices",
        metrics=(ACC_NORM, ACC),
        questions=spread(parse_lines(data, settings.choices, WrittenQuestion), settings.max_rows),
        inputs={settings.choices: sha256(data), "prompt template": sha256(PROMPT.encode())},
        batch_size=settings.batch_size,
        lay_out=lambda q: (PROMPT.format(question=q.question), [f" {choice}" for choice in q.choices]),
    )


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, continuations: Sequence[str]) -> list[Scored]:
    """Each continuation after `prompt`, tokenised together with it as it would stand in a text.

    What counts begins at the first token that the prompt alone would not have: one that joins the prompt's end with the
    answer's beginning counts as the answer's.
    """
    prefix = leading_tokens(tokenizer)
    alone, *whole = tokenizer([prompt, *(prompt + c for c in continuations)], add_special_tokens=False)["input_ids"]
    return [
        Scored(
            [*prefix, *ids],
            len(prefix) + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, ids, strict=False))),
        )
        for ids in whole
    ]


def judge(question: Question, continuations: Sequence[str], log_likelihoods: Sequence[float]) -> Item:
    """What the model chose; of equally likely answers the first, as in lm-evaluation-harness."""
    per_character = [v / len(c.strip()) for v, c in zip(log_likelihoods, continuations, strict=True)]
    chosen, chosen_norm = (values.index(max(values)) for values in (list(log_likelihoods), per_character))
    return Item(
        question.id,
        question.subject,
        {
            "right": float(chosen == question.answer),
            "right_norm": float(chosen_norm == question.answer),
            "answer_nats": -log_likelihoods[question.answer],
        },
        {"log_likelihoods": list(log_likelihoods), "answer": question.answer},
    )
