"""Padding, waiting and utilisation as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from jobs.training import feed
from jobs.training.feed import Feed
from jobs.training.utilisation import flops_per_token, peak_flops


def batches() -> Iterator[dict[str, Any]]:
    rows = torch.zeros(2, 5, dtype=torch.long)
    yield {"input_ids": rows, "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])}
    yield {"input_ids": torch.zeros(1, 10, dtype=torch.long)}  # packed: no mask, nothing is padding


def test_wait_and_padding_are_those_of_the_batches_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 20.0])
    monkeypatch.setattr(feed.time, "perf_counter", lambda: next(clock))
    watching = Feed()
    given = list(watching.watched(batches()))
    assert [batch["input_ids"].numel() for batch in given] == [10, 10]
    assert watching.take(steps=2) == {"data_wait_seconds": 2.0, "padding_ratio": pytest.approx(3 / 20)}
    assert watching.take(steps=1) == {}, "nothing came since"


def test_taking_one_batch_leaves_the_next() -> None:
    whole, watching = batches(), Feed()
    assert next(watching.watched(whole))["input_ids"].shape == (2, 5)
    assert next(watching.watched(whole))["input_ids"].shape == (1, 10)


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("Tesla T4", None),
        ("NVIDIA L400 from the future", None),
    ],
)
def test_peak_is_known_or_absent(device: str, peak: float | None) -> None:
    assert peak_flops(device) == peak


def test_flops_count_only_what_is_trained_three_times() -> None:
    assert flops_per_token(1000, 1000) == 6 * 1000
    assert flops_per_token(1000, 10) == 4 * 1000 + 6 * 10
