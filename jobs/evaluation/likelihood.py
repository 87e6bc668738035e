"""How likely a model finds given tokens after others, summed per row.

Rows of a group (the answers to one question) begin alike. That beginning goes through the model once and its keys and
values are repeated for the rows, which for four short answers to a long question saves most of the work. Logits are
computed only where a token is scored: with a vocabulary of 262,144 they cost more than all layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.evaluation.benchmark import Progress
from jobs.training.scoring import IGNORED, Row, collate, scoring

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_LOGIT_BYTES = 2**30
"""Memory for the logits of one pass in float32, which bounds the rows of a batch; softmax holds them twice."""


@dataclass(frozen=True)
class Scored:
    """Tokens of a row to score: `input_ids`, of which those from `start` on count."""

    input_ids: list[int]
    start: int


def of_rows(
    model: PreTrainedModel, rows: Sequence[Row], batch_size: int, pad_token_id: int, progress: Progress
) -> list[float]:
    """Log-likelihood in nats of each row's labelled tokens (label -100: none); the first token is never predicted."""
    import torch

    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]), reverse=True)
    sums: dict[int, float] = {}
    start = 0
    with scoring(model) as device:
        while start < len(order):
            longest = len(rows[order[start]]["input_ids"])
            batch = order[start : start + _fitting(model, longest, batch_size)]
            inputs = {name: t.to(device) for name, t in collate([rows[i] for i in batch], pad_token_id).items()}
            labels = inputs.pop("labels")[:, 1:]
            # One range of positions for all rows: from the first that predicts a scored token on.
            first = int(torch.nonzero((labels != IGNORED).any(0))[0])
            logits = model(**inputs, use_cache=False, logits_to_keep=longest - first).logits[:, :-1]
            sums.update(zip(batch, _summed(logits, labels[:, first:]), strict=True))
            start += len(batch)
            progress(start, len(order))
    return [sums[index] for index in range(len(rows))]


def of_groups(
    model: PreTrainedModel,
    groups: Sequence[Sequence[Scored]],
    batch_size: int,
    pad_token_id: int,
    progress: Progress,
) -> list[list[float]]:
    """Log-likelihood in nats of each row of each group. Every row scores at least one token, and not its first.

    Groups of like length go together; `batch_size` bounds the rows of a batch. Raises ValueError for a group whose rows
    do not begin with the same token.
    """

    def longest(index: int) -> int:
        return max(len(row.input_ids) for row in groups[index])

    # A batch has groups of one size, so that keys and values can be repeated alike.
    order = sorted(range(len(groups)), key=lambda index: (len(groups[index]), longest(index)), reverse=True)
    results: dict[int, list[float]] = {}
    with scoring(model) as device:
        while len(results) < len(order):
            rest = order[len(results) :]
            size = len(groups[rest[0]])
            count = max(1, _fitting(model, longest(rest[0]), batch_size) // size)
            batch = [index for index in rest[:count] if len(groups[index]) == size]
            results.update(zip(batch, _batch(model, [groups[i] for i in batch], pad_token_id, device), strict=True))
            progress(len(results), len(order))
    return [results[index] for index in range(len(groups))]


def _batch(
    model: PreTrainedModel, groups: Sequence[Sequence[Scored]], pad_token_id: int, device: torch.device
) -> list[list[float]]:
    """One pass over the beginnings, padded on the left, and one over what follows them, padded on the right.

    The last token of a beginning predicts the first token after it, so its logits come from the first pass.
    """
    import torch

    size = len(groups[0])
    heads = [list(row.input_ids[:n]) for row, n in ((group[0], _shared(group)) for group in groups)]
    tails = [row.input_ids[len(head) :] for group, head in zip(groups, heads, strict=True) for row in group]
    skipped = [row.start - len(head) for group, head in zip(groups, heads, strict=True) for row in group]
    labels = [[IGNORED] * skip + tail[skip:] for tail, skip in zip(tails, skipped, strict=True)]

    width = max(map(len, heads))
    head_ids = torch.tensor([[pad_token_id] * (width - len(h)) + h for h in heads], device=device)
    head_mask = torch.tensor([[0] * (width - len(h)) + [1] * len(h) for h in heads], device=device)
    positions = (head_mask.cumsum(1) - 1).clamp(min=0)
    first = model(head_ids, attention_mask=head_mask, position_ids=positions, use_cache=True, logits_to_keep=1)

    length = max(map(len, tails))
    tail_ids = torch.tensor([t + [pad_token_id] * (length - len(t)) for t in tails], device=device)
    tail_labels = torch.tensor([label + [IGNORED] * (length - len(label)) for label in labels], device=device)
    logits = first.logits.repeat_interleave(size, 0)
    if length > 1:
        cache: Any = first.past_key_values
        cache.batch_repeat_interleave(size)
        tail_mask = torch.tensor([[1] * len(t) + [0] * (length - len(t)) for t in tails], device=device)
        lengths = head_mask.sum(1).repeat_interleave(size)[:, None]
        then = model(
            tail_ids[:, :-1],
            attention_mask=torch.cat([head_mask.repeat_interleave(size, 0), tail_mask[:, :-1]], 1),
            position_ids=lengths + torch.arange(length - 1, device=device),
            past_key_values=cache,
            use_cache=True,
        )
        logits = torch.cat([logits, then.logits], 1)
    sums = _summed(logits, tail_labels)
    return [sums[start : start + size] for start in range(0, len(sums), size)]


def _shared(group: Sequence[Scored]) -> int:
    """Tokens that all rows begin with, and that none of them scores."""
    limit = min(row.start for row in group)
    columns = itertools.islice(zip(*(row.input_ids for row in group), strict=False), limit)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    if shared == 0:
        raise ValueError("the rows of a group must begin alike")
    return shared


def _summed(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Log-likelihood of `labels` (rows, tokens) under `logits` (rows, tokens, vocabulary), summed per row in float64.

    Unlabelled positions are left out before the softmax, which is most of the memory traffic.
    """
    import torch

    scored = labels != IGNORED
    values = -torch.nn.functional.cross_entropy(logits[scored].float(), labels[scored], reduction="none")
    sums = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    sums.index_add_(0, torch.nonzero(scored)[:, 0], values.double())
    return [float(value) for value in sums]


def _fitting(model: PreTrainedModel, length: int, batch_size: int) -> int:
    vocabulary: int = model.get_input_embeddings().weight.shape[0]
    return max(1, min(batch_size, _LOGIT_BYTES // (4 * length * vocabulary)))
