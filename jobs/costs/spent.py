"""What a run has used, out of its events, and what that costs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jobs.cluster.values import worker_groups
from jobs.errors import BudgetSpent
from jobs.events import Event
from jobs.runs import Run, read_events
from jobs.settings import Settings, from_yaml
from jobs.tuning.record import spent_s

_MILLION = 1e6
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Used:
    """Time and work. Time is from a session's first event to its last, so neither the start of machines is in it nor
    pauses between sessions are."""

    seconds: float = 0.0
    busy_seconds: float = 0.0
    """Of these, the time in which optimiser steps ran."""
    tokens: float = 0.0
    """Trained on, also those that a crash made the run repeat."""

    def more(self, seconds: float, values: dict[str, float]) -> Used:
        """After `seconds` more, and after a point of the curve."""
        busy, tokens = values.get("busy_seconds", 0.0), values.get("tokens", 0.0)
        return Used(self.seconds + seconds, self.busy_seconds + busy, self.tokens + tokens)


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    used: Used
    machines: int
    usd_per_hour: float
    """Of all its machines together."""
    trains: bool

    @property
    def usd(self) -> float:
        return self.used.seconds / _HOUR_S * self.usd_per_hour

    @property
    def idle_usd(self) -> float:
        """The part in which no optimiser step ran; 0 for jobs that have none."""
        idle_s = max(0.0, self.used.seconds - self.used.busy_seconds) if self.trains else 0.0
        return idle_s / _HOUR_S * self.usd_per_hour

    def numbers(self) -> dict[str, Any]:
        """Figures for `result.json` and MLflow."""
        million = self.used.tokens / _MILLION
        return {
            "usd": round(self.usd, 6),
            "idle_usd": round(self.idle_usd, 6),
            "usd_per_million_tokens": round(self.usd / million, 6) if million else None,
            "usd_per_hour": round(self.usd_per_hour, 6),
            "machines": self.machines,
            "seconds": round(self.used.seconds, 1),
        }


def used(events: Iterable[Event]) -> Used:
    """All that these events tell."""
    known = list(events)
    total = Used(spent_s(known))
    for event in known:
        if event.kind == "metrics":
            total = total.more(0.0, event.fields["values"])
    return total


def price(settings: Settings, job: str) -> tuple[int, float] | None:
    """Machines of a job and what all of them cost an hour; None without a price."""
    group, machines = ("preprocessing" if job == "preprocess" else "training"), 1
    if settings.scaling.workers:
        ((group, size),) = worker_groups(job, settings).items()
        machines = size["max"]
    each = settings.cost.usd_per_hour.get(group)
    return None if each is None else (machines, machines * each + settings.cost.head_usd_per_hour)


def cost(settings: Settings, job: str, so_far: Used) -> Cost | None:
    """What it costs; None without a price."""
    priced = price(settings, job)
    return None if priced is None else Cost(so_far, *priced, trains=job == "train")


def of_run(run: Run) -> Cost | None:
    """What a run, finished or not, has cost by its own settings. Raises the errors of reading it."""
    settings = from_yaml(run.config(), run.address("config.yaml"))
    return cost(settings, run.job, used(read_events(run)))


def budget_s(settings: Settings, job: str) -> float:
    """Seconds until the run's budget is spent; infinite without budget or price."""
    priced, budget = price(settings, job), settings.cost.run_budget_usd
    return math.inf if priced is None or budget is None else budget / priced[1] * _HOUR_S


def refuse_overspent(settings: Settings, run: Run) -> None:
    """Raises BudgetSpent if the run has spent `cost.run_budget_usd`; by what is on record, so all workers agree."""
    now, budget = cost(settings, run.job, used(read_events(run))), settings.cost.run_budget_usd
    if now and budget is not None and now.usd >= budget:
        raise BudgetSpent(
            f"{run.id}: {now.usd:.2f} of {budget:g} USD (cost.run_budget_usd) are spent; its last checkpoint is kept"
        )


def in_result(settings: Settings, job: str, events: Iterable[Event]) -> dict[str, Any]:
    """`{"cost": …}` for `result.json`; empty without a price."""
    found = cost(settings, job, used(events))
    return {"cost": found.numbers()} if found else {}
