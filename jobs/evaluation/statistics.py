"""How sure a figure is, and whether two models differ.

| what | method | source |
|---|---|---|
| interval of a share of right answers | Wilson's score interval | Wilson 1927; Brown, Cai, DasGupta 2001 |
| interval of a ratio of sums, and of any paired difference | percentile bootstrap over items | Efron 1979 |
| two models, right or wrong on each item | McNemar's test, exact | McNemar 1947 |
| two models, a number on each item | Wilcoxon's signed-rank test | Wilcoxon 1945 |
| several benchmarks, one verdict | Holm's correction | Holm 1979 |

Items are resampled, never tokens: tokens of one row depend on each other. Both models are resampled together, because
an item that is hard for one is mostly hard for the other, and only so is the interval of the difference as narrow as
the data allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.evaluation.benchmark import Item, Metric

Column = NDArray[np.float64]

_ELEMENTS_PER_CHUNK = 4_000_000
"""Resampled indices held at once: 32 MB."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """Subject minus other over the items that both have, with the p-value of `test`."""

    p_value: float
    test: str
    items: int


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: number of resamples, confidence level, seed."""

    resamples: int
    confidence: float
    seed: int

    def sums(self, columns: Column) -> Column:
        """Sums of resampled items: (columns, items) to (columns, resamples).

        Sets of the same size are resampled alike, whichever columns are asked for.
        """
        items = columns.shape[1]
        rng = np.random.default_rng([self.seed, items])
        result = np.empty((columns.shape[0], self.resamples))
        step = max(1, _ELEMENTS_PER_CHUNK // items)
        for start in range(0, self.resamples, step):
            chunk = slice(start, min(start + step, self.resamples))
            drawn = rng.integers(0, items, (chunk.stop - chunk.start, items))
            for row, column in enumerate(columns):
                result[row, chunk] = column[drawn].sum(axis=1)
        return result

    def ends(self, resampled: Column) -> tuple[float, float]:
        """The middle `confidence` of resampled figures."""
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(resampled, (tail, 1 - tail))
        return float(low), float(high)


def estimate(metric: Metric, items: Sequence[Item], how: Resampling) -> Estimate:
    """The metric over `items`, with its interval."""
    columns = _columns(metric, items)
    value = float(_figure(metric, columns.sum(axis=1)))
    if metric.binary:
        from scipy.stats import binomtest

        interval = binomtest(round(columns[0].sum()), len(items)).proportion_ci(how.confidence, method="wilson")
        return Estimate(value, float(interval.low), float(interval.high))
    return Estimate(value, *how.ends(_figure(metric, how.sums(columns))))


def difference(metric: Metric, subject: Sequence[Item], other: Sequence[Item], how: Resampling) -> Difference:
    """Subject minus other over the items that both have. Raises ValueError if they have none in common."""
    theirs = {item.id: item for item in other}
    pairs = [(item, theirs[item.id]) for item in subject if item.id in theirs]
    if not pairs:
        raise ValueError("no item in common")
    ours_columns, their_columns = (_columns(metric, side) for side in zip(*pairs, strict=True))
    both = np.concatenate([ours_columns, their_columns])
    size = len(ours_columns)

    def gap(sums: Column) -> Any:
        return _figure(metric, sums[:size]) - _figure(metric, sums[size:])

    low, high = how.ends(gap(how.sums(both)))
    if metric.binary:
        test, p_value = "McNemar, exact", mcnemar(ours_columns[0], their_columns[0])
    else:
        ours, others = (c[0] / c[1] for c in (ours_columns, their_columns))
        test, p_value = "Wilcoxon signed-rank", wilcoxon(ours - others)
    return Difference(float(gap(both.sum(axis=1))), low, high, p_value, test, len(pairs))


def mcnemar(ours: Column, theirs: Column) -> float:
    """Two-sided p-value: of the items that one model alone has right, half should be either's (both columns 0 or 1)."""
    from scipy.stats import binomtest

    only_ours, only_theirs = int((ours > theirs).sum()), int((ours < theirs).sum())
    if only_ours + only_theirs == 0:
        return 1.0
    return float(binomtest(only_ours, only_ours + only_theirs, 0.5).pvalue)


def wilcoxon(differences: Column) -> float:
    """Two-sided p-value that `differences`, one per item, are symmetric about zero; items without one are left out."""
    from scipy import stats

    return float(stats.wilcoxon(differences).pvalue) if np.any(differences != 0) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several, in their order: the k-th smallest of n times n − k + 1, never falling."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


def direction(metric: Metric, found: Difference, p_value: float, confidence: float) -> int:
    """1 if the subject is better, -1 if worse, 0 if nobody can tell.

    Test and interval must agree: they ask for different things (ranks of items, the figure itself).
    """
    if p_value >= 1 - confidence or found.low <= 0 <= found.high:
        return 0
    return int(math.copysign(1, found.value)) * (-1 if metric.lower_is_better else 1)


def _columns(metric: Metric, items: Sequence[Item]) -> Column:
    """Numerator and denominator, shape (2, items)."""
    over = [item.values[metric.denominator] if metric.denominator else 1.0 for item in items]
    return np.array([[item.values[metric.numerator] for item in items], over], dtype=np.float64)


def _figure(metric: Metric, sums: Column) -> Any:
    """The metric from summed numerators and denominators, shape (2, …)."""
    ratio = metric.scale * sums[0] / sums[1]
    return np.exp(ratio) if metric.exponential else ratio
