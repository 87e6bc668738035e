"""Who is told what, when: once, again when it matters, and once that it is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from healthy import NOW

from ops.alerts.due import Firing, Told, delivered, plan
from ops.alerts.message import Alert
from ops.health.finding import Id, Severity

REPEAT_S, CALM_S = 3600.0, 300.0
ALERT = Alert("haetsal", Id.HEAD_DOWN, "Pod/h", Severity.WARNING, "head h has ended", "", "RUNBOOK.md#head-down", NOW)


class Channel:
    """Tells and remembers, over a clock of its own."""

    def __init__(self) -> None:
        self.told: Told = {}
        self.now = NOW

    def look(self, *firing: Firing, takes: bool = True, after_s: float = 15) -> list[tuple[str, bool]]:
        self.now += timedelta(seconds=after_s)
        due, self.told = plan(firing, self.told, self.now, REPEAT_S, CALM_S)
        if takes:
            self.told = delivered(self.told, due, self.now)
        return [(one.alert.target, one.alert.resolved) for one in due]


def test_told_once_and_again_after_a_while() -> None:
    channel = Channel()
    assert channel.look(Firing(ALERT, 0)) == [("Pod/h", False)]
    said = replace(ALERT, sentence="head h has ended: 2 min ago", tried="nothing")
    assert [channel.look(Firing(said, 0)) for _ in range(100)] == [[]] * 100, "another sentence is no other alert"
    assert channel.look(Firing(said, 0), after_s=REPEAT_S) == [("Pod/h", False)]
    assert channel.look(Firing(said, 0)) == []


def test_told_again_when_it_gets_worse_or_was_repaired() -> None:
    channel = Channel()
    channel.look(Firing(ALERT, 0))
    assert channel.look(Firing(ALERT, 1)) == [("Pod/h", False)], "repaired"
    assert channel.look(Firing(ALERT, 1)) == []
    worse = replace(ALERT, severity=Severity.CRITICAL)
    assert channel.look(Firing(worse, 1)) == [("Pod/h", False)]
    assert channel.look(Firing(ALERT, 1)) == [], "better is no news until it is over"


def test_resolved_once_and_only_when_it_lasts() -> None:
    channel = Channel()
    channel.look(Firing(ALERT, 0))
    for _ in range(10):  # comes and goes
        assert channel.look() == []
        assert channel.look(Firing(ALERT, 0)) == []
    assert channel.look() == []
    assert channel.look(after_s=CALM_S) == [("Pod/h", True)]
    assert channel.look() == []
    assert channel.told == {}


def test_what_was_not_taken_is_due_until_it_is() -> None:
    channel = Channel()
    assert channel.look(Firing(ALERT, 0), takes=False) == [("Pod/h", False)]
    assert channel.look(Firing(ALERT, 0), takes=False) == [("Pod/h", False)]
    assert channel.look(Firing(ALERT, 0)) == [("Pod/h", False)]
    channel.look(takes=False)
    assert channel.look(after_s=CALM_S, takes=False) == [("Pod/h", True)]
    assert channel.look() == [("Pod/h", True)]


def test_fingerprints_tell_targets_apart_and_nothing_else() -> None:
    assert replace(ALERT, sentence="x", severity=Severity.CRITICAL, tried="y").fingerprint == ALERT.fingerprint
    others = [replace(ALERT, target="Pod/i"), replace(ALERT, finding=Id.GCS_DOWN), replace(ALERT, namespace="b")]
    assert len({one.fingerprint for one in [ALERT, *others]}) == 4
