"""What the runs of a period have cost, and whether another one may begin."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from jobs.costs.meter import WARN_AT
from jobs.costs.spent import of_run
from jobs.errors import BudgetSpent, HaetsalError
from jobs.runs import Run, job_of, run_ids
from jobs.settings import Settings
from jobs.storage import Storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One run of the period. `usd` is None where it has no price, `problem` says why it could not be read."""

    run_id: str
    job: str
    seconds: float = 0.0
    tokens: float = 0.0
    usd: float | None = None
    idle_usd: float = 0.0
    problem: str = ""


def began(run_id: str) -> date:
    """The day (UTC) in a run's id."""
    return datetime.strptime(run_id.rsplit("-", 3)[1], "%Y%m%d").replace(tzinfo=UTC).date()


def rows(storage: Storage, first: date, last: date) -> Iterator[Row]:
    """All runs that began from `first` to `last`, both days included.

    A pipeline is left out: what its steps run are runs of their own, and would be counted twice.
    """
    for run_id in run_ids(storage):
        if first <= began(run_id) <= last and job_of(run_id) != "pipeline":
            yield _row(Run(storage, run_id))


def _row(run: Run) -> Row:
    try:
        cost = of_run(run)
    except HaetsalError as error:  # one damaged record, or one of an older version, does not hide the others
        return Row(run.id, run.job, problem=str(error))
    if cost is None:
        return Row(run.id, run.job)
    return Row(run.id, run.job, cost.used.seconds, cost.used.tokens, cost.usd, cost.idle_usd)


def totals(found: list[Row]) -> dict[str, Any]:
    """Sums over rows; USD per million trained tokens over those that train."""
    trained = [row for row in found if row.job == "train" and row.usd is not None]
    tokens, usd = sum(row.tokens for row in trained), sum(row.usd or 0.0 for row in trained)
    return {
        "usd": sum(row.usd or 0.0 for row in found),
        "idle_usd": sum(row.idle_usd for row in found),
        "trained_tokens": tokens,
        "usd_per_million_trained_tokens": usd / tokens * 1e6 if tokens else None,
        "runs": len(found),
        "runs_without_price": sum(row.usd is None and not row.problem for row in found),
        "runs_unreadable": sum(bool(row.problem) for row in found),
    }


def check(settings: Settings, storage: Storage, today: date | None = None) -> None:
    """Warn at 80 % of the month's budget. Raises BudgetSpent at 100 %: no work begins or goes on then."""
    budget = settings.cost.month_budget_usd
    if budget is None:
        return
    today = today or datetime.now(UTC).date()
    spent = totals(list(rows(storage, today.replace(day=1), today)))["usd"]
    said = (
        f"{storage.address('runs')}: {spent:.2f} of {budget:g} USD (cost.month_budget_usd) are spent in {today:%Y-%m}"
    )
    if spent >= budget:
        raise BudgetSpent(f"{said}; raise the budget, or wait for the next month. `make cost` lists the runs")
    if spent >= WARN_AT * budget:
        _log.warning("%s; at 100 %% no run begins any more", said)
