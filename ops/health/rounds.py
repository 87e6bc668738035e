"""One round of the checker: look, judge, decide, repair, tell, remember.

Its order makes it safe to kill it anywhere: a repair is written down, together with its audit entry, before it is made;
the next checker finds it begun and counts it. Alerts come after repairs, which no slow channel may hold up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from jobs.errors import HaetsalError
from ops.alerts.channels import Channel
from ops.alerts.due import Firing
from ops.alerts.message import alert
from ops.alerts.send import send
from ops.backup.objects import Objects
from ops.health.checks import check
from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Observed
from ops.recovery import audit
from ops.recovery.act import Repairer
from ops.recovery.audit import Entry
from ops.recovery.decide import Case, Decision, about_repairs, decide
from ops.recovery.history import BEGUN, UNKNOWN, Attempt, History, Record, attempted, observe, unfinished
from ops.recovery.ladder import repairs
from ops.recovery.memory import Memory, Store
from ops.settings import OpsSettings

AUDIT_FULL = 500
"""So many entries may wait for S3; beyond, nothing is repaired, since it could not be accounted for."""


@dataclass(frozen=True)
class Report:
    """What a round found and did."""

    at: datetime
    decisions: tuple[Decision, ...]
    outcomes: dict[str, str] = field(default_factory=dict)
    """Of repairs, by scope."""
    problems: tuple[str, ...] = ()
    """The checker's own: its memory could not be read or written."""
    repairs_ever: int = 0
    """Repairs that were ever begun, in this round and before."""

    @property
    def findings(self) -> list[Finding]:
        """What is wrong."""
        return [decision.finding for decision in self.decisions]


class Checker:
    """One platform with everything that a round needs."""

    def __init__(
        self,
        settings: OpsSettings,
        look: Callable[[frozenset[str]], Observed],
        store: Store,
        repairer: Repairer,
        channels: Sequence[Channel],
        audit_log: Objects,
        dry_run: bool = False,
    ) -> None:
        """`look` is given what must be brought back. A dry run reads the memory, and writes and tells nothing."""
        self._settings, self._look, self._store, self._repairer = settings, look, store, repairer
        self._channels, self._audit_log, self._dry_run = channels, audit_log, dry_run
        self._memory = Memory()

    def round(self, at_work: Callable[[], None]) -> Report:
        """One whole round. `at_work` raises Lost unless we still hold the Lease; it is asked before each repair."""
        problem = self._recall()
        settings, known = self._settings, self._memory
        observed = self._look(unfinished(known.history))
        now = observed.at
        found = check(observed, settings.health)
        history = {scope: _concluded(record) for scope, record in known.history.items()}
        scopes = {one.scope for one in found}
        history = dict(observe(history, scopes, now, settings.recovery, blind=bool(observed.unseen)))
        memory = replace(known, history=history).log(*_conclusions(known.history, history, now))
        cases = [Case(one, repairs(one, observed, settings.health)) for one in found]
        decisions = decide(cases, history, now, settings.recovery)
        if len(memory.audit) >= AUDIT_FULL:
            problem = (
                problem or f"nothing is repaired: {len(memory.audit)} audit entries wait for {self._audit_log.root}"
            )
            finding = Finding(Id.AUDIT_BEHIND, "audit", Severity.CRITICAL, problem)
            decisions += (Decision(finding, None, ""),)
        outcomes: dict[str, str] = {}
        if problem:
            decisions = tuple(replace(one, repair=None, reason=problem) for one in decisions)
        elif not self._dry_run:
            memory, outcomes, problem = self._repair(memory, decisions, now, at_work)
        decisions += tuple(Decision(one, None, "") for one in about_repairs(memory.history, now, settings.recovery))
        if not self._dry_run:
            memory, failed = self._tell(memory, decisions, now)
            decisions += tuple(Decision(one, None, "") for one in failed)
            problem = self._remember(memory) or problem
        self._memory = memory
        return Report(now, decisions, outcomes, (problem,) if problem else (), memory.repairs)

    def _recall(self) -> str:
        """Load the memory; where it cannot be, this process's own serves for telling, and nothing is repaired."""
        try:
            self._memory = self._store.load()
        except HaetsalError as error:
            return f"nothing is repaired: {error}"
        return ""

    def _repair(
        self, memory: Memory, decisions: Iterable[Decision], now: datetime, at_work: Callable[[], None]
    ) -> tuple[Memory, dict[str, str], str]:
        """Write the repairs down, make them, and add their outcomes. Also says why none could be written down."""
        chosen = [(one, _attempt(one, memory.history, now)) for one in decisions if one.repair]
        planned = replace(memory, repairs=memory.repairs + len(chosen))
        for one, attempt in chosen:
            planned = _noted(planned, one, attempt, "decided", one.reason)
        try:
            if chosen:
                self._store.save(planned)
        except HaetsalError as error:
            return memory, {one.finding.scope: f"not made: {error}" for one, _ in chosen}, str(error)
        outcomes: dict[str, str] = {}
        for one, attempt in chosen:
            outcome = self._carry_out(one, at_work)
            outcomes[one.finding.scope] = outcome
            planned = _noted(planned, one, replace(attempt, outcome=outcome), "ended", outcome)
        return planned, outcomes, ""

    def _carry_out(self, decision: Decision, at_work: Callable[[], None]) -> str:
        assert decision.repair
        try:
            at_work()
            return self._repairer.carry_out(decision.repair)
        except HaetsalError as error:
            return f"failed: {error}"

    def _tell(self, memory: Memory, decisions: Iterable[Decision], now: datetime) -> tuple[Memory, list[Finding]]:
        """Tell what has lasted for a while or was repaired. A channel that fails is a finding itself."""
        settings, firing = self._settings, []
        for one in decisions:
            record = memory.history.get(one.finding.scope, Record())
            since = record.bad_since or now
            if (now - since).total_seconds() >= settings.recovery.confirm_s or record.attempts or not record.bad_since:
                it = alert(one, settings.cluster.namespace, since, settings.alerts.runbook, _tried(record))
                firing.append(Firing(it, len(record.attempts)))
        sent, failed = send(self._channels, firing, memory.sent, now, settings.alerts, settings.recovery.calm_s)
        return replace(memory, sent=sent), [
            Finding(Id.CHANNEL_DOWN, name, Severity.WARNING, f"alerts are not delivered: {why}")
            for name, why in sorted(failed.items())
        ]

    def _remember(self, memory: Memory) -> str:
        """Save; send the audit entries to where they belong, and forget those that have arrived."""
        try:
            self._store.save(memory)
            left = audit.ship(self._audit_log, memory.audit)
            if left != memory.audit:
                self._store.save(replace(memory, audit=left))
        except HaetsalError as error:
            return str(error)
        return ""


def _concluded(record: Record) -> Record:
    """A repair that was begun when its checker ended is one whose outcome nobody knows."""
    if record.attempts and record.attempts[-1].outcome == BEGUN:
        return replace(record, attempts=(*record.attempts[:-1], replace(record.attempts[-1], outcome=UNKNOWN)))
    return record


def _conclusions(before: History, after: History, now: datetime) -> Iterable[Entry]:
    """Audit entries for what the look itself concluded: outcomes that were lost, and scopes that have healed."""
    for scope, record in before.items():
        for last in record.attempts[-1:]:
            if last.outcome == BEGUN:
                yield audit.entry(now, "ended", scope, "", last.what, UNKNOWN)
            if record.bad_since and scope in after and after[scope].bad_since is None:
                seconds = (now - record.bad_since).total_seconds()
                yield audit.entry(now, "healed", scope, "", last.what, f"{seconds:.0f} s after it was first seen")


def _attempt(decision: Decision, history: History, now: datetime) -> Attempt:
    """The attempt that a decision makes, which may be an unfinished one that goes on."""
    repair, record = decision.repair, history.get(decision.finding.scope, Record())
    assert repair
    if repair.restores and record.attempts and record.attempts[-1].is_unfinished:
        return replace(record.attempts[-1], outcome=BEGUN)
    return Attempt(now, repair.step, str(repair), f"{repair.kind}/{repair.name}" if repair.restores else "")


def _noted(memory: Memory, decision: Decision, attempt: Attempt, event: str, said: str) -> Memory:
    scope = decision.finding.scope
    entry = audit.entry(attempt.at, event, scope, decision.finding.id, attempt.what, said)
    return replace(memory, history=attempted(memory.history, scope, attempt)).log(entry)


def _tried(record: Record) -> str:
    return "; ".join(f"{one.what} at {one.at:%H:%M:%S} ({one.outcome})" for one in record.attempts)
