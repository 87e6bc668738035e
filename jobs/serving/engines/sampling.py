"""The next token of each row, drawn by the row's own parameters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.serving.engines.task import Sampling

if TYPE_CHECKING:
    import torch

_FIRST_NUCLEUS = 64
"""Likeliest tokens looked at first for top_p; a sort of the whole vocabulary takes 50 times as long."""


@dataclass
class Sampler:
    """One row's parameters, its own randomness, and the tokens that it drew."""

    sampling: Sampling
    rng: random.Random
    drawn: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, sampling: Sampling, choice: int) -> Sampler:
        """For answer number `choice`: with a seed each answer has its own, which neither order nor company changes."""
        rng = random.SystemRandom() if sampling.seed is None else random.Random(f"{sampling.seed} {choice}")
        return cls(sampling, rng)


def draw(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token for each row of `logits` [rows, vocabulary], in float32, which is changed.

    Penalties as in OpenAI's API: a token's logit falls by presence_penalty if it was drawn for this answer, and by
    frequency_penalty for each time. Then temperature, then top_p (Holtzman et al. 2020), then one uniform number per
    row picks by the cumulative distribution. Temperature 0 takes the likeliest.
    """
    for row, sampler in zip(logits, samplers, strict=True):
        _penalize(row, sampler)
    chosen: list[int] = logits.argmax(-1).tolist()
    drawing = [index for index, sampler in enumerate(samplers) if sampler.sampling.temperature > 0]
    if drawing:
        for index, token in zip(drawing, _draw(logits[drawing], [samplers[i] for i in drawing]), strict=True):
            chosen[index] = token
    for token, sampler in zip(chosen, samplers, strict=True):
        sampler.drawn[token] += 1
    return chosen


def _penalize(row: torch.Tensor, sampler: Sampler) -> None:
    presence, frequency = sampler.sampling.presence_penalty, sampler.sampling.frequency_penalty
    if sampler.drawn and (presence or frequency):
        tokens = list(sampler.drawn)
        row[tokens] -= row.new_tensor([presence + frequency * sampler.drawn[token] for token in tokens])


def _draw(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    temperature = logits.new_tensor([[max(sampler.sampling.temperature, 1e-4)] for sampler in samplers])
    probabilities = (logits / temperature).softmax(-1)
    for row, sampler in zip(probabilities, samplers, strict=True):
        if sampler.sampling.top_p < 1:
            _keep_nucleus(row, sampler.sampling.top_p)
    cumulative = probabilities.cumsum(-1)
    # Below the row's own total, and above 0: rounding must pick neither a token past the end nor one without a chance.
    uniform = logits.new_tensor([[1.0 - sampler.rng.random()] for sampler in samplers])
    picked = (cumulative < uniform * cumulative[:, -1:]).sum(-1)
    tokens: list[int] = picked.tolist()
    return tokens


def _keep_nucleus(row: torch.Tensor, top_p: float) -> None:
    """Zero all but the smallest set of likeliest tokens whose probabilities sum to `top_p`."""
    size = _FIRST_NUCLEUS
    while True:
        size = min(size, row.numel())
        values, tokens = row.topk(size)
        before = values.cumsum(0) - values
        if size == row.numel() or before[-1] >= top_p:
            break
        size *= 8
    kept = before < top_p
    row.zero_()
    row[tokens[kept]] = values[kept]
