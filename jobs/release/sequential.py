"""A test that may be looked at after every observation: e-values by betting on bounded differences.

Observations of the two variants come in pairs (`pairs`), each with a difference d in [-1, 1]. Against the hypothesis
"the mean of d is at most b" one can bet a share λ of one's wealth on each pair, which multiplies it by
1 + λ(d - b); for 0 ≤ λ < 1 / (1 + b) that is positive, and if the hypothesis holds the wealth is a supermartingale.
The mean over several λ is one too (the mixture of Robbins 1970). By Ville's inequality (1939) it ever reaches 1 / α
with probability at most α, however often one looks and whenever one stops. There is no assumption on the shape of the
distribution, and what a pair brings may depend on those before it.

| what | source |
|---|---|
| peeking at A/B tests, mixture sequential test on pairs of observations | Johari, Koomen, Pekelis, Walsh 2017; 2022 |
| time-uniform bounds without a parametric model | Howard, Ramdas, McAuliffe, Sekhon 2021 |
| wealth of bets as evidence on the mean of bounded values | Waudby-Smith, Ramdas 2024 |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Column = NDArray[np.float64]

_STAKES = 0.95 * 0.5 ** np.arange(10)
"""Shares of the largest stake, from one that wins fast on rare errors to one that wins on differences of 0.01."""


def running_e_values(differences: Column, bound: float) -> Column:
    """The log e-value after each pair, against "the mean is at most `bound`"; `differences` along the last axis.

    Shape in and out is the same. Raises ValueError for a difference or bound outside [-1, 1].
    """
    if not -1 < bound < 1 or (differences.size and not np.abs(differences).max() <= 1):
        raise ValueError("differences and bound must be in [-1, 1]")
    stakes = _STAKES / (1 + bound)
    wealth = np.log1p(stakes * (differences[..., None] - bound)).cumsum(axis=-2)
    return np.asarray(np.logaddexp.reduce(wealth, axis=-1) - math.log(len(stakes)))


def is_certain(differences: Column, bound: float, alpha: float) -> bool:
    """Whether it was ever plain, at level `alpha`, that the mean is above `bound`."""
    return bool(differences.size and running_e_values(differences, bound).max() >= -math.log(alpha))


def pairs(observed: Iterable[tuple[bool, T]]) -> list[tuple[T, T]]:
    """(challenger, champion) pairs from observations in their order of time; True marks the challenger's.

    Each is paired with the newest of the other variant that has no partner, so that both had the same load. Who is
    paired depends on the order alone, never on what was observed.
    """
    waiting: list[tuple[bool, T]] = []
    found: list[tuple[T, T]] = []
    for is_challenger, value in observed:
        if waiting and waiting[-1][0] != is_challenger:
            other = waiting.pop()[1]
            found.append((value, other) if is_challenger else (other, value))
        else:
            waiting.append((is_challenger, value))
    return found
