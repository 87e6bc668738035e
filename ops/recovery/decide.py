"""What is done about each finding: a pure function of findings, history, time and policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ops.health.finding import Finding, Id, Severity
from ops.health.settings import RecoverySettings
from ops.recovery.history import History, Record, is_flapping, is_open, next_attempt
from ops.recovery.ladder import LADDERS, Repair, Step


@dataclass(frozen=True)
class Case:
    """A finding with the repairs that it has."""

    finding: Finding
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What is done about a finding: one repair, or nothing for a reason."""

    finding: Finding
    repair: Repair | None
    reason: str


def decide(cases: Sequence[Case], history: History, now: datetime, policy: RecoverySettings) -> tuple[Decision, ...]:
    """One decision a case, in order; `cases` come causes first.

    Of each scope only the first case that has a ladder is repaired: what follows from it may heal with it.
    """
    leading: dict[str, Case] = {}
    for case in cases:
        if case.finding.id in LADDERS:
            leading.setdefault(case.finding.scope, case)
    decisions: list[Decision] = []
    for case in cases:
        leader = leading.get(case.finding.scope)
        if case.finding.id not in LADDERS:
            decisions.append(Decision(case.finding, None, "nothing is done by itself; see the runbook"))
        elif leader is not case and leader:
            decisions.append(Decision(case.finding, None, f"waits for {leader.finding.id} of {leader.finding.target}"))
        else:
            full = sum(decision.repair is not None for decision in decisions) >= policy.per_round
            decisions.append(_decide(case, history.get(case.finding.scope, Record()), now, policy, full))
    return tuple(decisions)


def _decide(case: Case, record: Record, now: datetime, policy: RecoverySettings, full: bool) -> Decision:
    count = len(record.attempts)
    repair = case.repairs[min(count, len(case.repairs) - 1)] if case.repairs else None
    earliest = next_attempt(record, policy)
    if count and record.attempts[-1].is_unfinished and repair and repair.restores and not repair.forbidden:
        return Decision(case.finding, repair, f"goes on with attempt {count}")
    if is_open(record, now, policy):
        held = f"repaired {count} times without success; a person is needed"
    elif is_flapping(record, now, policy):
        held = f"it came and went {len(record.turns)} times in {policy.flap_window_s / 60:.0f} min; find out why"
    elif repair is None:
        held = "there is nothing that a repair could be made on"
    elif (wait_s := _confirmation_s(case.finding, repair, policy) - _bad_s(record, now)) > 0:
        held = f"waits {wait_s:.0f} s to see whether it passes"
    elif earliest and now < earliest:
        held = f"repaired {count} times, last by: {record.attempts[-1].what}; next not before {earliest:%H:%M:%S}"
    elif repair.forbidden:
        held = f"must not {repair}: {repair.forbidden}"
    elif full:
        held = f"{policy.per_round} repairs are made in this round already"
    else:
        return Decision(case.finding, repair, f"attempt {count + 1} of {policy.attempts}")
    return Decision(case.finding, None, held)


def _confirmation_s(finding: Finding, repair: Repair, policy: RecoverySettings) -> float:
    """How long something must have been wrong. What is gone already cannot be destroyed: it comes back soon."""
    destroys = repair.step is Step.RECREATE and finding.id not in (Id.CLUSTER_MISSING, Id.SERVICE_MISSING)
    return policy.recreate_after_s if destroys else policy.confirm_s


def _bad_s(record: Record, now: datetime) -> float:
    return (now - record.bad_since).total_seconds() if record.bad_since else 0.0


def about_repairs(history: History, now: datetime, policy: RecoverySettings) -> Iterator[Finding]:
    """Findings on the repairs themselves: circuits that are open, scopes that flap."""
    for scope, record in sorted(history.items()):
        if record.bad_since and is_open(record, now, policy):
            tried = ", then ".join(attempt.what for attempt in record.attempts)
            sentence = f"{scope} was repaired {len(record.attempts)} times and is still unhealthy ({tried})"
            yield Finding(Id.REPAIRS_STOPPED, scope, Severity.CRITICAL, sentence)
        if is_flapping(record, now, policy):
            minutes = policy.flap_window_s / 60
            sentence = f"{scope} became unhealthy {len(record.turns)} times in {minutes:.0f} min; it is not repaired"
            yield Finding(Id.FLAPPING, scope, Severity.WARNING, sentence)
