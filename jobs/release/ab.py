"""The rule of the A/B test: from what was observed of both variants to go on, promote, roll back or hold. Pure.

Every metric is a badness in [0, 1]. A metric is *worse* when it is certain that the challenger's mean is above the
champion's and the observed difference is above the margin; *sound* when it is certain that the difference is below the
margin. One worse metric ends the test, at a false-positive rate that all metrics share (Bonferroni). All must be sound
to promote, each at the full level (an intersection-union test, Berger 1982). See `sequential` for the test itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from jobs.release.sequential import Column, is_certain, pairs
from jobs.release.settings import AbSettings

_SLOWEST = 4.0
"""Latencies count in this many of the champion's medians and no more, because what is bounded can be tested."""


@dataclass(frozen=True)
class Observation:
    """One answered request, or one that failed."""

    at_unix_s: float
    is_challenger: bool
    failed: bool
    latency_s: float | None = None
    """Until the whole answer was there; None if it failed."""
    answer_tokens: int | None = None
    score: float | None = None
    """What the user thought of it, from 0 to 1; None if they did not say."""


@dataclass(frozen=True)
class Baseline:
    """The champion alone, measured before the challenger got its first request; so it cannot lean to either."""

    latency_s: float
    """Median."""
    answer_tokens: float
    """Median."""


class Outcome(StrEnum):
    """What to do after a look."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    HOLD = "hold"


@dataclass(frozen=True)
class MetricState:
    """Where one metric stands. `difference` is the mean over pairs, challenger minus champion, in badness."""

    name: str
    margin: float
    pairs: int
    difference: float | None
    worse: bool
    sound: bool


@dataclass(frozen=True)
class Look:
    """One look at the test."""

    outcome: Outcome
    reason: str
    pairs: int
    """Of the metric that has the most: requests."""
    metrics: tuple[MetricState, ...]


def baseline(observed: Sequence[Observation]) -> Baseline | None:
    """Medians of the champion's answers; None if it gave none."""
    answered = [one for one in observed if not one.failed and not one.is_challenger]
    latencies = [one.latency_s for one in answered if one.latency_s is not None]
    tokens = [one.answer_tokens for one in answered if one.answer_tokens]
    if not latencies or not tokens:
        return None
    return Baseline(float(np.median(latencies)), float(np.median(tokens)))


def look(observed: Sequence[Observation], against: Baseline, settings: AbSettings, *, is_last: bool) -> Look:
    """Judge `observed`, in its order of time. `is_last`: time is up, so there is no going on."""
    states = tuple(
        _state(name, margin, differences(name, observed, against), settings)
        for name, margin in settings.margins().items()
    )
    most = max(state.pairs for state in states)
    worse = [state for state in states if state.worse]
    if worse:
        reason = "; ".join(f"{s.name} is worse by {s.difference:.3f} (margin {s.margin:g})" for s in worse)
        return Look(Outcome.ROLL_BACK, reason, most, states)
    unsure = [state.name for state in states if not state.sound]
    if not unsure and most >= settings.min_pairs:
        return Look(Outcome.PROMOTE, "no metric is worse by more than its margin", most, states)
    if is_last or most >= settings.max_pairs:
        what = ", ".join(f"{s.name} ({s.pairs} pairs)" for s in states if not s.sound)
        reason = (
            f"cannot be told after {most} pairs: {what}" if unsure else f"only {most} of {settings.min_pairs} pairs"
        )
        return Look(Outcome.HOLD, reason, most, states)
    return Look(Outcome.CONTINUE, f"not certain yet: {', '.join(unsure) or 'too few pairs'}", most, states)


def differences(name: str, observed: Sequence[Observation], against: Baseline) -> Column:
    """Badness of the challenger minus that of the champion, pair by pair."""
    values = ((one.is_challenger, badness(name, one, against)) for one in observed)
    found = pairs((who, value) for who, value in values if value is not None)
    return np.array([ours - theirs for ours, theirs in found], dtype=np.float64)


def badness(name: str, one: Observation, against: Baseline) -> float | None:
    """One observation in one metric, from 0 (best) to 1; None if it says nothing about it.

    `preference` is the score per length: an answer that is longer than the champion's usual one must please as much
    more, which takes away the advantage that long answers have with those who rate them (Dubois et al. 2024).
    """
    if name == "errors":
        return float(one.failed)
    if name == "latency":
        return None if one.latency_s is None else min(1.0, one.latency_s / against.latency_s / _SLOWEST)
    if one.score is None:
        return None
    if name == "feedback" or not one.answer_tokens:
        return 1 - one.score
    return 1 - one.score * min(1.0, against.answer_tokens / one.answer_tokens)


def _state(name: str, margin: float, found: Column, settings: AbSettings) -> MetricState:
    level = settings.false_positive_rate
    mean = float(found.mean()) if found.size else None
    worse = mean is not None and mean > margin and is_certain(found, 0.0, level / len(settings.margins()))
    sound = not worse and is_certain(-found, -margin, level)
    return MetricState(name, margin, len(found), mean, worse, sound)
