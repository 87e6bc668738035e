"""What a study has found out, read back from its events: the one memory that a resumed study goes on from.

Kinds of events: "trial_started" (trial, draw, parameters), "trial_report" (trial, step, steps, eval_loss) and
"trial_ended" (trial, outcome, reason).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from jobs.runs import Event
from jobs.tuning.settings import Value

STARTED, REPORT, ENDED = "trial_started", "trial_report", "trial_ended"

Outcome = Literal["completed", "stopped", "cut_off", "diverged", "out_of_memory", "died", "failed"]
"""`stopped` is by ASHA, `cut_off` by a budget; `died` is a process that ended, `failed` any other error."""

_SOUND: tuple[Outcome, ...] = ("completed", "stopped", "cut_off")


@dataclass(frozen=True)
class Report:
    """One evaluation: after `step` of `steps` optimiser steps the held-out loss, in nats per token."""

    step: int
    steps: int
    eval_loss: float


@dataclass
class Trial:
    """One trial so far; `outcome` is None while it runs."""

    number: int
    draw: dict[str, Value]
    parameters: dict[str, Value]
    reports: list[Report] = field(default_factory=list)
    outcome: Outcome | None = None
    reason: str | None = None

    @property
    def best(self) -> Report | None:
        """The evaluation with the lowest loss; the earliest of equals."""
        return min(self.reports, key=lambda report: (report.eval_loss, report.step), default=None)

    @property
    def loss(self) -> float:
        """The lowest held-out loss, infinite before the first evaluation."""
        return self.best.eval_loss if self.best else math.inf

    @property
    def trained_steps(self) -> int:
        """Optimiser steps up to the last evaluation."""
        return max((report.step for report in self.reports), default=0)

    @property
    def sound(self) -> bool:
        """Whether training with these values came to an evaluation and to no bad end."""
        return self.outcome in _SOUND and bool(self.reports)


def progress(report: Report, evaluations: int) -> float:
    """How far a trial has come, in evaluations: the clock of ASHA's rungs.

    A share of the trial's own training, so that trials with different numbers of steps compare.
    """
    return evaluations * report.step / report.steps


def trials(events: Iterable[Event]) -> dict[int, Trial]:
    """All trials that were started, by number."""
    found: dict[int, Trial] = {}
    for event in events:
        fields = event.fields
        match event.kind:
            case "trial_started":
                started = Trial(fields["trial"], fields["draw"], fields["parameters"])
                found.setdefault(started.number, started)
            case "trial_report":
                found[fields["trial"]].reports.append(Report(fields["step"], fields["steps"], fields["eval_loss"]))
            case "trial_ended":
                found[fields["trial"]].outcome = fields["outcome"]
                found[fields["trial"]].reason = fields["reason"]
    return found


def best(found: Mapping[int, Trial]) -> Trial | None:
    """The sound trial with the lowest held-out loss; None without one."""
    return min((trial for trial in found.values() if trial.sound), key=lambda trial: trial.loss, default=None)


def spent_s(events: Iterable[Event]) -> float:
    """Seconds that a study has run, pauses between its sessions left out: each session begins with "config"."""
    known = list(events)
    return sum(after.time_unix_s - before.time_unix_s for before, after in pairwise(known) if after.kind != "config")


def outcomes(found: Mapping[int, Trial]) -> dict[str, int]:
    """How many trials ended how."""
    counted: dict[str, int] = {}
    for trial in found.values():
        if trial.outcome:
            counted[trial.outcome] = counted.get(trial.outcome, 0) + 1
    return counted


def fields_of(report: Report) -> dict[str, Any]:
    """A report as fields of an event."""
    return {"step": report.step, "steps": report.steps, "eval_loss": report.eval_loss}
