"""The A/B test from its first look to its last: looks, traffic in steps, and everything on record.

The rule is in `ab`. A test that was cut off goes on from the observations that are in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from jobs.errors import EnvironmentNotReady
from jobs.events import EventLog
from jobs.release.ab import Baseline, Look, Observation, Outcome, baseline, look
from jobs.release.serving import Trial
from jobs.release.settings import AbSettings

LOOK, BASELINE = "ab-look", "ab-baseline"


class Held(EnvironmentNotReady):
    """Nothing speaks against the candidate, but not enough speaks for it. Exit code 3; the run can be resumed."""


def conduct(
    trial: Trial,
    settings: AbSettings,
    events: EventLog,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Raise the challenger's share until the test ends; the last look as JSON. Its traffic is taken away at the end.

    A challenger that is worse is off within one interval. Raises Held if the champion gives no answers to compare with.
    """
    observed, against = recorded(events)
    began = clock()
    try:
        if against is None:
            against = _measure_champion(trial, settings, wait)
            events.append(BASELINE, **asdict(against))
            events.publish()
        for share in _shares(settings, observed, against):
            trial.share(share)
            wait(settings.interval_s)
            fresh = list(trial.observed())
            observed += fresh
            found = look(observed, against, settings, is_last=clock() - began > settings.max_duration_s)
            if found.outcome is not Outcome.CONTINUE:
                trial.share(0.0)
            events.append(LOOK, share=share, observed=[asdict(one) for one in fresh], look=_plain(found))
            events.publish()
            if found.outcome is not Outcome.CONTINUE:
                return _plain(found)
        raise AssertionError("shares never end")
    finally:
        trial.share(0.0)


def recorded(events: EventLog) -> tuple[list[Observation], Baseline | None]:
    """What earlier starts of this test observed."""
    observed: list[Observation] = []
    against = None
    for event in events.read():
        if event.kind == LOOK:
            observed += [Observation(**one) for one in event.fields["observed"]]
        elif event.kind == BASELINE:
            against = Baseline(**event.fields)
    return observed, against


def _shares(settings: AbSettings, observed: Sequence[Observation], against: Baseline) -> Iterator[float]:
    """The challenger's share for each interval: the next one after every `step_pairs`, then the last."""
    while True:
        done = look(observed, against, settings, is_last=False).pairs // settings.step_pairs
        yield settings.steps[min(done, len(settings.steps) - 1)]


def _measure_champion(trial: Trial, settings: AbSettings, wait: Callable[[float], object]) -> Baseline:
    trial.share(0.0)
    seen: list[Observation] = []
    for _ in range(max(2, int(settings.max_duration_s // settings.interval_s))):
        wait(settings.interval_s)
        seen += [one for one in trial.observed() if not one.is_challenger]
        found = baseline(seen)
        if found is not None and sum(not one.failed for one in seen) >= settings.baseline_requests:
            return found
    raise Held(
        f"A/B: the champion gave {sum(not one.failed for one in seen)} answers within {settings.max_duration_s:g} s, "
        f"and {settings.baseline_requests} are needed to compare with; is there any traffic?"
    )


def _plain(found: Look) -> dict[str, Any]:
    return asdict(found) | {"outcome": str(found.outcome)}
