"""What is remembered of each scope between rounds, and how a round changes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ops.health.settings import RecoverySettings

BEGUN = "begun"
"""Outcome of a repair that was not seen to end: it is under way, or its checker was killed."""
UNKNOWN = "unknown: its checker ended before it could say"
UNFINISHED = "unfinished: "
"""How the outcome of a recreation begins whose old object is not gone yet."""


@dataclass(frozen=True)
class Attempt:
    """One repair. It is written down before it is made."""

    at: datetime
    step: str
    what: str
    restores: str = ""
    """`RayCluster/name` that it deletes and brings back from a backup."""
    outcome: str = BEGUN

    @property
    def is_unfinished(self) -> bool:
        """Whether something may have been deleted and not been brought back."""
        return bool(self.restores) and (self.outcome in (BEGUN, UNKNOWN) or self.outcome.startswith(UNFINISHED))


@dataclass(frozen=True)
class Record:
    """One scope that is unhealthy, or was lately."""

    bad_since: datetime | None = None
    """None while it is healthy."""
    good_since: datetime | None = None
    turns: tuple[datetime, ...] = ()
    """When it became unhealthy, as far back as flapping is counted."""
    attempts: tuple[Attempt, ...] = ()


History = Mapping[str, Record]


def observe(history: History, bad: Iterable[str], now: datetime, policy: RecoverySettings, blind: bool) -> History:
    """`history` after a look at which the scopes `bad` were unhealthy.

    Blind, a scope that is not in `bad` was perhaps only not seen, and stays as it was. A scope that has been healthy
    for `calm_s` is forgotten.
    """
    bad = set(bad)
    known: dict[str, Record] = {}
    for scope in {*history, *bad}:
        record = history.get(scope, Record())
        recent = tuple(turn for turn in record.turns if (now - turn).total_seconds() <= policy.flap_window_s)
        if scope in bad and record.bad_since is None:
            known[scope] = replace(record, bad_since=now, good_since=None, turns=(*recent, now))
        elif scope in bad or (blind and record.bad_since):
            known[scope] = replace(record, turns=recent)
        else:
            record = replace(record, bad_since=None, good_since=record.good_since or now, turns=recent)
            assert record.good_since is not None
            if (now - record.good_since).total_seconds() < policy.calm_s:
                known[scope] = record
    return known


def attempted(history: History, scope: str, attempt: Attempt) -> History:
    """`history` with one more attempt, or with the outcome of the last one if it is the same."""
    record = history.get(scope, Record())
    earlier = record.attempts
    if earlier and earlier[-1].at == attempt.at:
        earlier = earlier[:-1]
    return {**history, scope: replace(record, attempts=(*earlier, attempt))}


def unfinished(history: History) -> frozenset[str]:
    """What must be brought back, whether or not the settings know it."""
    last = (record.attempts[-1] for record in history.values() if record.attempts)
    return frozenset(attempt.restores for attempt in last if attempt.is_unfinished)


def is_flapping(record: Record, now: datetime, policy: RecoverySettings) -> bool:
    """Whether a scope comes and goes."""
    recent = [turn for turn in record.turns if (now - turn).total_seconds() <= policy.flap_window_s]
    return len(recent) >= policy.flaps


def is_open(record: Record, now: datetime, policy: RecoverySettings) -> bool:
    """Whether a scope's circuit is open: repairs did not help, and no other is tried yet."""
    if len(record.attempts) < policy.attempts:
        return False
    return now < record.attempts[-1].at + timedelta(seconds=policy.circuit_s)


def next_attempt(record: Record, policy: RecoverySettings) -> datetime | None:
    """Earliest time of the next repair; none if there was none yet. The wait doubles with each."""
    if not record.attempts:
        return None
    wait_s = min(policy.window_s * 2 ** (len(record.attempts) - 1), policy.backoff_max_s)
    return record.attempts[-1].at + timedelta(seconds=wait_s)
