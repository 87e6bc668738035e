"""Held-out loss, counted the one way used everywhere: summed over tokens, then divided by tokens.

A mean of batch means would weigh short rows more and change with the batch size; this does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

IGNORED = -100


class Row(Protocol):
    """A row as `jobs.dataset` makes it: token ids, and labels that are -100 where no loss is taken."""

    def __getitem__(self, key: str) -> list[int]: ...


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood in nats, summed over `tokens` predicted tokens."""

    nll: float
    tokens: int

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per token, in nats."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def __add__(self, other: Score) -> Score:
        return Score(self.nll + other.nll, self.tokens + other.tokens)


def score(model: torch.nn.Module, rows: Sequence[Row], batch_size: int, pad_token_id: int) -> Score:
    """Score `rows` under `model`, longest first so that batches hold rows of like length.

    The model's own forward computes the loss (with its logit scaling or capping); `num_items_in_batch=1` makes it
    return the sum instead of the mean.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]), reverse=True)
    total = Score(0.0, 0)
    with scoring(model) as device:
        for start in range(0, len(order), batch_size):
            batch = [rows[i] for i in order[start : start + batch_size]]
            inputs = {name: tensor.to(device) for name, tensor in collate(batch, pad_token_id).items()}
            nll = model(**inputs, num_items_in_batch=1, use_cache=False).loss
            total += Score(float(nll), int((inputs["labels"][:, 1:] != IGNORED).sum()))
    return total


@contextmanager
def scoring(model: torch.nn.Module) -> Iterator[torch.device]:
    """No gradients, no dropout, the forward pass in the precision of the weights; gives the model's device.

    Not `inference_mode`: what a split model gathers in it could not be trained with afterwards.
    """
    import torch

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=is_half(model)):
            yield device
    finally:
        model.train(was_training)


def is_half(model: torch.nn.Module) -> bool:
    """Whether the forward pass should run under bfloat16 autocast: some of the weights are bfloat16."""
    import torch

    return any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def collate(batch: Sequence[Row], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask`, `labels`, each of shape (rows, longest row)."""
    import torch

    longest = max(len(row["input_ids"]) for row in batch)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([v + [filler] * (longest - len(v)) for v in values])

    ids = [row["input_ids"] for row in batch]
    return {
        "input_ids": padded(ids, pad_token_id),
        "attention_mask": padded([[1] * len(i) for i in ids], 0),
        "labels": padded([row["labels"] for row in batch], IGNORED),
    }
