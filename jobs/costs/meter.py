"""The cost of the run that goes on in this process, and its budget."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from jobs.costs.spent import Cost, cost, used
from jobs.errors import BudgetSpent
from jobs.runs import EventLog
from jobs.settings import Settings

WARN_AT = 0.8
"""Share of a budget at which a warning says so."""

_log = logging.getLogger(__name__)


class Meter:
    """Counts from what earlier sessions of the run have spent."""

    def __init__(self, settings: Settings, job: str, events: EventLog, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._job, self._events, self._clock = settings, job, events, clock
        self._used, self._seen_s = used(events.read()), clock()
        self._warned = False
        self.budget_usd = settings.cost.run_budget_usd

    def point(self, values: dict[str, float]) -> None:
        """A point of the curve."""
        now_s = self._clock()
        self._used, self._seen_s = self._used.more(now_s - self._seen_s, values), now_s

    def cost(self) -> Cost | None:
        """What the run has cost until now; None without a price."""
        return cost(self._settings, self._job, self._used.more(self._clock() - self._seen_s, {}))

    def check(self) -> None:
        """Warn once when the budget is nearly spent. Raises BudgetSpent when it is."""
        now = self.cost()
        if now is None or self.budget_usd is None:
            return
        said = f"{now.usd:.2f} of {self.budget_usd:g} USD (cost.run_budget_usd) are spent"
        if now.usd >= self.budget_usd:
            raise BudgetSpent(f"{self._events.run.id}: {said}; its last checkpoint is kept")
        if now.usd >= WARN_AT * self.budget_usd and not self._warned:
            self._warned = True
            self._events.append("budget", spent_usd=now.usd, budget_usd=self.budget_usd)
            _log.warning("%s; at 100 %% the run ends at its next checkpoint", said)
