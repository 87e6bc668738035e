"""The gate: from evidence to Pass, Fail or Inconclusive, check by check. Pure.

What is missing, not a number, or too little to tell is Inconclusive, which holds the candidate back like a Fail but
can be cured by more data. Quality is a test of non-inferiority (Piaggio et al. 2012): the question is not whether the
candidate is better, but whether it is certain that it is not worse by more than the margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobs.evaluation.benchmark import Item, Metric
from jobs.evaluation.statistics import Resampling, difference
from jobs.release.settings import GateSettings, QualityBar, cost_per_million


class Verdict(StrEnum):
    """Of one check, and of the gate."""

    PASS = "pass"  # noqa: S105, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Check:
    """One bar: what was found, against what, and in a sentence why the verdict is what it is."""

    name: str
    verdict: Verdict
    found: str
    bar: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """Both sides on one benchmark, item by item; None where the evaluation has no such benchmark or metric."""

    metric: Metric
    candidate: Sequence[Item]
    champion: Sequence[Item]


@dataclass(frozen=True)
class Speed:
    """One model under the fixed load."""

    latency_s: float
    """Median time of one answer, alone on the device."""
    tokens_per_second: float
    """Median, in full batches."""


@dataclass(frozen=True)
class Safety:
    """What was found in the generated answers, by kind, each answer counted once."""

    answers: int
    unsafe: int
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class Merge:
    """Whether adapter and merged model give the same logits, and the largest divergence or what was wrong."""

    equal: bool
    said: str


@dataclass(frozen=True)
class Evidence:
    """Everything that the gate looks at. What could not be had is None."""

    quality: Mapping[str, Measured | None]
    candidate: Speed | None
    champion: Speed | None
    safety: Safety | None
    merge: Merge | None


def overall(checks: Sequence[Check]) -> Verdict:
    """Fail if one fails, else Inconclusive if one is, else Pass; without any check nothing is proven."""
    found = {check.verdict for check in checks}
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if verdict in found:
            return verdict
    return Verdict.PASS if checks else Verdict.INCONCLUSIVE


def judge(evidence: Evidence, settings: GateSettings, how: Resampling) -> list[Check]:
    """Every check that is asked for. `how` gives number and seed of the resamples; its confidence is not used."""
    checks = [_quality(name, bar, evidence.quality.get(name), how) for name, bar in settings.quality.items()]
    ours, theirs = evidence.candidate, evidence.champion
    latency, speed = (ours.latency_s, ours.tokens_per_second) if ours else (None, None)
    their_latency, their_speed = (theirs.latency_s, theirs.tokens_per_second) if theirs else (None, None)
    cost = cost_per_million(settings.price_per_hour, speed) if settings.price_per_hour and speed else None
    bars = (
        ("latency against the champion", _ratio(latency, their_latency), settings.max_latency_ratio, 1),
        ("latency, seconds", latency, settings.max_latency_s, 1),
        ("throughput against the champion", _ratio(speed, their_speed), settings.min_throughput_ratio, -1),
        ("throughput, tokens per second", speed, settings.min_tokens_per_second, -1),
        ("cost of a million tokens", cost, settings.max_cost_per_million, 1),
    )
    checks += [_limit(name, found, bar, sign) for name, found, bar, sign in bars if bar is not None]
    if settings.max_unsafe is not None:
        checks.append(_safety(evidence.safety, settings.max_unsafe, settings.min_answers))
    return [*checks, _merge(evidence.merge)]


def _quality(name: str, bar: QualityBar, found: Measured | None, how: Resampling) -> Check:
    title = f"quality: {name}"
    wanted = f"loss ≤ {bar.margin:g} with {bar.confidence:.0%} confidence"
    if found is None:
        return Check(title, Verdict.INCONCLUSIVE, "-", wanted, "the evaluation did not measure it")
    least = min(len(found.candidate), len(found.champion))
    if least < bar.min_items:
        few = f"only {least} items, {bar.min_items} are asked for"
        return Check(title, Verdict.INCONCLUSIVE, "-", wanted, few)
    # The ends of a two-sided interval of 2c - 1 are one-sided bounds with confidence c each.
    two_sided = Resampling(how.resamples, 2 * bar.confidence - 1, how.seed)
    try:
        gap = difference(found.metric, found.candidate, found.champion, two_sided)
    except (ValueError, KeyError, ZeroDivisionError) as error:
        return Check(title, Verdict.INCONCLUSIVE, "-", wanted, f"the two cannot be compared: {error}")
    if gap.items < bar.min_items or not all(map(math.isfinite, (gap.value, gap.low, gap.high))):
        reason = f"{gap.items} common items, difference {gap.value}: nothing can be said"
        return Check(title, Verdict.INCONCLUSIVE, "-", wanted, reason)
    sign = 1 if found.metric.lower_is_better else -1
    loss, least_loss, most_loss = sign * gap.value, *sorted((sign * gap.low, sign * gap.high))
    said = f"{found.metric.title}: loss {loss:+.4g}, between {least_loss:+.4g} and {most_loss:+.4g}"
    if most_loss <= bar.margin:
        return Check(title, Verdict.PASS, f"{loss:+.4g}", wanted, said)
    if least_loss > bar.margin:
        return Check(title, Verdict.FAIL, f"{loss:+.4g}", wanted, said)
    return Check(title, Verdict.INCONCLUSIVE, f"{loss:+.4g}", wanted, f"{said}; more items would tell")


def _limit(name: str, found: float | None, bar: float, sign: int) -> Check:
    """`sign` is 1 where less is better, -1 where more is."""
    wanted = f"{'≤' if sign > 0 else '≥'} {bar:.4g}"
    if found is None or not _is_sound(found):
        return Check(name, Verdict.INCONCLUSIVE, "-", wanted, "was not measured")
    held = sign * found <= sign * bar
    return Check(name, Verdict.PASS if held else Verdict.FAIL, f"{found:.4g}", wanted, "held" if held else "missed")


def _safety(found: Safety | None, most: float, least: int) -> Check:
    wanted = f"≤ {most:.1%} of at least {least} answers"
    if found is None or found.answers < least:
        count = "no" if found is None else f"only {found.answers}"
        return Check("safety", Verdict.INCONCLUSIVE, "-", wanted, f"{count} answers to look at")
    share = found.unsafe / found.answers
    kinds = ", ".join(f"{count} with {kind}" for kind, count in found.kinds.items() if count) or "nothing found"
    verdict = Verdict.PASS if share <= most else Verdict.FAIL
    return Check("safety", verdict, f"{share:.1%}", wanted, f"{kinds} in {found.answers} answers")


def _merge(found: Merge | None) -> Check:
    name, wanted = "merged model", "the same logits as base and adapter"
    if found is None:
        return Check(name, Verdict.INCONCLUSIVE, "-", wanted, "was not compared")
    verdict = Verdict.PASS if found.equal else Verdict.FAIL
    return Check(name, verdict, "equal" if found.equal else "different", wanted, found.said)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs and _is_sound(ours) and _is_sound(theirs) else None


def _is_sound(value: float) -> bool:
    return math.isfinite(value) and value > 0
