"""The order of rows: random, but the same for the same seed and epoch."""

from __future__ import annotations

import random

import torch

from jobs.training.trainer import LengthGroupedOrder

LENGTHS = random.Random(5).choices(range(5, 400), k=1003)


def order(seed: int, epoch: int, batch_size: int = 8) -> list[int]:
    sampler = LengthGroupedOrder(LENGTHS, batch_size, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_each_row_comes_once() -> None:
    assert sorted(order(1, 0)) == list(range(1003))
    assert len(LengthGroupedOrder(LENGTHS, 8, 1)) == 1003


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = order(1, 3)
    torch.manual_seed(99)
    torch.rand(1000)

    assert order(1, 3) == first
    assert order(1, 4) != first
    assert order(2, 3) != first


def test_drawing_an_order_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    order(1, 0)

    assert torch.equal(torch.get_rng_state(), before)


def padded_share(rows: list[int], batch_size: int = 8) -> float:
    batches = [[LENGTHS[i] for i in rows[k : k + batch_size]] for k in range(0, len(rows), batch_size)]
    return 1 - sum(LENGTHS) / sum(max(batch) * len(batch) for batch in batches)


def test_batches_hold_rows_of_like_length() -> None:
    shuffled = list(range(1003))
    random.Random(0).shuffle(shuffled)

    assert padded_share(shuffled) > 0.35
    assert padded_share(order(1, 0)) < 0.08
