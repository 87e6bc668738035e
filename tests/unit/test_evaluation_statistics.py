"""Intervals and tests: by hand where a hand can, by simulation where only that shows it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.evaluation.benchmark import Item, Metric
from jobs.evaluation.statistics import Resampling, difference, direction, estimate, holm, mcnemar, wilcoxon

RATIO = Metric("loss", "loss", "nats", "tokens", lower_is_better=True)
SHARE = Metric("acc", "acc", "right", binary=True)
HOW = Resampling(resamples=1000, confidence=0.95, seed=1)


def rows(nats: list[float], tokens: list[float]) -> list[Item]:
    return [Item(str(i), "", {"nats": n, "tokens": t}) for i, (n, t) in enumerate(zip(nats, tokens, strict=True))]


def answers(right: list[int]) -> list[Item]:
    return [Item(str(i), "", {"right": float(r)}) for i, r in enumerate(right)]


def test_ratio_is_of_sums_not_a_mean_of_ratios() -> None:
    found = estimate(RATIO, rows([10.0, 1.0], [10.0, 2.0]), HOW)

    assert found.value == pytest.approx(11 / 12)
    assert found.low == 0.5
    assert found.high == 1.0


def test_scale_and_exponential() -> None:
    bits = Metric("bpb", "", "nats", "tokens", scale=1 / math.log(2))
    perplexity = Metric("ppl", "", "nats", "tokens", exponential=True)
    items = rows([3.0, 4.0], [5.0, 2.0])

    assert estimate(bits, items, HOW).value == pytest.approx(1 / math.log(2))
    assert estimate(perplexity, items, HOW).value == pytest.approx(math.e)


def test_wilson_interval_by_hand() -> None:
    # (p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n) with p = 0.2, n = 10, z = 1.96
    found = estimate(SHARE, answers([1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), HOW)

    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0567, 0.5098), abs=1e-4)
    assert estimate(SHARE, answers([0] * 30), HOW).high == pytest.approx(0.1135, abs=1e-4)


def test_same_seed_same_interval_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    items = rows(list(np.linspace(1, 9, 40)), [4.0] * 40)
    whole = estimate(RATIO, items, HOW)

    assert estimate(RATIO, items, HOW) == whole
    assert estimate(RATIO, items, Resampling(1000, 0.95, seed=2)) != whole
    monkeypatch.setattr("jobs.evaluation.statistics._ELEMENTS_PER_CHUNK", 40 * 7)
    assert estimate(RATIO, items, HOW) == whole


@pytest.mark.parametrize(
    ("ours", "theirs", "p_value"),
    [
        ([1] * 6 + [0] * 4, [0] * 6 + [0] * 4, 2 * 0.5**6),  # 6 to 0
        ([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1], 2 * (1 + 6) * 0.5**6),  # 5 to 1
        ([1, 0, 1], [1, 0, 1], 1.0),
    ],
)
def test_mcnemar_by_hand(ours: list[int], theirs: list[int], p_value: float) -> None:
    assert mcnemar(np.array(ours, float), np.array(theirs, float)) == pytest.approx(p_value)


def test_wilcoxon_by_hand() -> None:
    assert wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 * 0.5**5)  # the most extreme of 32 signings
    assert wilcoxon(np.array([1.0, -2.0, 3.0, -4.0])) == pytest.approx(14 / 16)  # rank sums 4 and 6 of 10
    assert wilcoxon(np.zeros(4)) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_are_found_by_id_whatever_the_order() -> None:
    ours, theirs = rows([1.0, 2.0, 3.0], [1.0] * 3), rows([2.0, 4.0, 6.0, 100.0], [1.0] * 4)

    found = difference(RATIO, ours, theirs[::-1], HOW)

    assert found.value == pytest.approx(-2.0)
    assert found.items == 3
    assert found.high < 0


def test_verdict_wants_both_test_and_interval() -> None:
    sure = difference(RATIO, rows([1.0] * 9, [1.0] * 9), rows([2.0] * 9, [1.0] * 9), HOW)

    assert direction(RATIO, sure, 0.001, 0.95) == 1  # lower is better
    assert direction(SHARE, sure, 0.001, 0.95) == -1
    assert direction(RATIO, sure, 0.2, 0.95) == 0
    undecided = difference(RATIO, rows([1.0, 3.0], [1.0] * 2), rows([2.0, 1.0], [1.0] * 2), HOW)
    assert direction(RATIO, undecided, 0.001, 0.95) == 0


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Lengths uniform, loss per token log-normal: skewed, as real rows are. 300 draws: 95 % ± 4 %."""
    rng, truth, held = np.random.default_rng(11), math.exp(0.125), 0
    for _ in range(300):
        tokens = rng.integers(20, 200, 60).astype(float)
        found = estimate(RATIO, rows(list(tokens * rng.lognormal(0, 0.5, 60)), list(tokens)), HOW)
        held += found.low <= truth <= found.high

    assert 0.91 <= held / 300 <= 0.985


def test_difference_intervals_hold_zero_and_tests_seldom_cry_wolf() -> None:
    """Two models that differ by chance alone. Both tests are valid, so at most 5 % (and noise) of p-values are low."""
    rng = np.random.default_rng(12)
    reps, wilcoxon_low, mcnemar_low, missed = 400, 0, 0, 0
    for _ in range(reps):
        hard = rng.lognormal(0, 0.5, 60)
        ours, theirs = (list(hard * rng.lognormal(0, 0.1, 60)) for _ in range(2))
        loss = difference(RATIO, rows(ours, [1.0] * 60), rows(theirs, [1.0] * 60), Resampling(400, 0.95, 3))
        wilcoxon_low += loss.p_value < 0.05
        missed += not loss.low <= 0 <= loss.high
        right = [rng.random(180) < 0.25 for _ in range(2)]
        mcnemar_low += mcnemar(right[0].astype(float), right[1].astype(float)) < 0.05

    assert 0.02 <= wilcoxon_low / reps <= 0.085
    assert mcnemar_low / reps <= 0.07  # exact and discrete, so below its level
    assert missed / reps <= 0.10


def test_paired_interval_is_narrower_than_two_of_its_own() -> None:
    rng = np.random.default_rng(13)
    hard = rng.lognormal(0, 0.5, 60)
    ours, theirs = (rows(list(hard * rng.lognormal(shift, 0.05, 60)), [1.0] * 60) for shift in (-0.05, 0.0))

    found = difference(RATIO, ours, theirs, HOW)
    single = estimate(RATIO, ours, HOW)

    assert found.high - found.low < (single.high - single.low) / 4
    assert found.high < 0
    assert found.p_value < 0.001
