"""Which alerts a channel is told now: a pure function of what is wrong, what it was told, and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ops.alerts.message import Alert
from ops.health.finding import Severity


@dataclass(frozen=True)
class Sent:
    """What a channel was told last of one fingerprint."""

    alert: Alert
    at: datetime
    repairs: int
    """Repairs that had been made when it was told."""
    good_since: datetime | None = None
    """Since when it is not wrong any more; it is called resolved only when that lasts."""


@dataclass(frozen=True)
class Firing:
    """An alert with the number of repairs that were made for it."""

    alert: Alert
    repairs: int


Told = Mapping[str, Sent]


def plan(
    firing: Iterable[Firing], told: Told, now: datetime, repeat_s: float, calm_s: float
) -> tuple[tuple[Firing, ...], Told]:
    """The alerts to send, and `told` as it is even if they cannot be sent.

    Sent is what is new, what became more severe, what was repaired again, what has gone on for `repeat_s`, and once
    that it is over. What comes and goes within `calm_s` is one alert.
    """
    current = {one.alert.fingerprint: one for one in firing}
    due = [one for key, one in current.items() if key not in told or _again(one, told[key], now, repeat_s)]
    kept: dict[str, Sent] = {}
    for key, sent in told.items():
        if key in current:
            kept[key] = replace(sent, good_since=None)
            continue
        sent = replace(sent, good_since=sent.good_since or now)
        kept[key] = sent
        if sent.good_since and (now - sent.good_since).total_seconds() >= calm_s:
            due.append(Firing(replace(sent.alert, resolved=True), sent.repairs))
    return tuple(due), kept


def delivered(told: Told, due: Iterable[Firing], now: datetime) -> Told:
    """`told` after `due` has reached the channel."""
    after = dict(told)
    for one in due:
        key = one.alert.fingerprint
        if one.alert.resolved:
            after.pop(key, None)
        else:
            after[key] = Sent(one.alert, now, one.repairs)
    return after


def _again(one: Firing, sent: Sent, now: datetime, repeat_s: float) -> bool:
    worse = one.alert.severity is Severity.CRITICAL and sent.alert.severity is not Severity.CRITICAL
    return worse or one.repairs > sent.repairs or (now - sent.at).total_seconds() >= repeat_s
