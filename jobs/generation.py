"""Answers of a model to prompts, greedily, so that the same model gives the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.backends.sharding import is_sharded
from jobs.training.scoring import scoring

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and whether the length limit cut it off."""

    text: str
    is_cut_off: bool


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Continue `prompts` (token ids), each until its end token or for `max_new_tokens`; like lengths go together.

    `progress` gets prompts answered and prompts in all.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), max(1, batch_size)):
        batch = order[start : start + batch_size]
        answers.update(zip(batch, _answer(model, tokenizer, [prompts[i] for i in batch], max_new_tokens), strict=True))
        progress(len(answers), len(order))
    return [answers[index] for index in range(len(prompts))]


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Sequence[int]], max_new_tokens: int
) -> list[Answer]:
    encoded = tokenizer.pad([{"input_ids": list(p)} for p in prompts], padding_side="left", return_tensors="pt")
    with scoring(model) as device:
        output = model.generate(
            **encoded.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=is_sharded(model),  # all go on until the last one's answer ends
        )
    written = output[:, encoded["input_ids"].shape[1] :].tolist()
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    ends = _end_tokens(model)
    return [
        # the length limit may cut a character in two
        Answer(text.rstrip("\ufffd").strip(), is_cut_off=len(ids) == max_new_tokens and not ends & set(ids))
        for text, ids in zip(texts, written, strict=True)
    ]


def _end_tokens(model: PreTrainedModel) -> set[int]:
    end = model.generation_config.eos_token_id
    return set(end if isinstance(end, list) else [end])
