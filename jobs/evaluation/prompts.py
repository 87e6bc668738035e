"""Generation: does the model answer in Korean, without loops, to the end, and in the form that was asked for?

Answers are generated greedily under the model's own chat template and checked by rule, so no second model judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field

from jobs.dataset import Conversation, Message
from jobs.dataset.rendering import ChatRenderer, ensure_chat_template
from jobs.evaluation.benchmark import Item, Loaded, Metric, Progress, spread
from jobs.evaluation.checks import Check, hangul_share, holds, normalised, repetition
from jobs.evaluation.files import Identified, Text, parse_lines, read_file, sha256
from jobs.evaluation.settings import EvaluateSettings
from jobs.generation import Answer, answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompt(Identified):
    """One prompt, the checks that an answer must pass, and an answer that passes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Text
    prompt: Text
    checks: Annotated[list[Check], Field(min_length=1)]
    reference: Text


class Prompts:
    """See `jobs.evaluation.benchmark.Benchmark`."""

    name = "prompts"
    metrics = (
        Metric("checks_passed", "checks passed, mean share per answer", "checks_passed"),
        Metric("passed", "answers that pass every check", "passed", binary=True),
        Metric("hangul_share", "Hangul among visible characters", "hangul_share", lower_is_better=None),
        Metric("repetition", "repeated 4-grams", "repetition", lower_is_better=True),
        Metric("cut_off", "answers cut off by the length limit", "cut_off", lower_is_better=True, binary=True),
        Metric("empty", "empty answers", "empty", lower_is_better=True, binary=True),
    )

    def __init__(self, settings: EvaluateSettings) -> None:
        data = read_file(settings.prompts, "evaluate.prompts")
        self._prompts = spread(parse_lines(data, settings.prompts, Prompt), settings.max_rows)
        self._settings = settings
        self.inputs = {settings.prompts: sha256(data)}
        self.preview = self._prompts[0].prompt

    def __len__(self) -> int:
        return len(self._prompts)

    def run(self, loaded: Loaded, progress: Progress) -> list[Item]:
        """Let one model answer, and check its answers."""
        options, tokenizer = self._settings, loaded.tokenizer
        given = self.encoded(tokenizer)
        answers = answer(loaded.model, tokenizer, given, options.max_new_tokens, options.batch_size, progress)
        return [judge(prompt, found) for prompt, found in zip(self._prompts, answers, strict=True)]

    def encoded(self, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The prompts as token ids, under the tokenizer's chat template."""
        ensure_chat_template(tokenizer)
        renderer = ChatRenderer(tokenizer)
        texts = [renderer.prompt(_conversation(prompt)) for prompt in self._prompts]
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


def judge(prompt: Prompt, found: Answer) -> Item:
    """What an answer is worth."""
    text = normalised(found.text)
    failed = [f"{check.type} {check.value}" for check in prompt.checks if not holds(check, text)]
    return Item(
        prompt.id,
        prompt.kind,
        {
            "passed": float(not failed),
            "checks_passed": 1 - len(failed) / len(prompt.checks),
            "hangul_share": hangul_share(text),
            "repetition": repetition(text),
            "cut_off": float(found.is_cut_off),
            "empty": float(not text),
        },
        {"prompt": prompt.prompt, "answer": text, "failed": failed},
    )


def _conversation(prompt: Prompt) -> Conversation:
    # ChatRenderer.prompt leaves the assistant's last turn out.
    return Conversation((Message("user", prompt.prompt), Message("assistant", prompt.reference)), None, prompt.id)
