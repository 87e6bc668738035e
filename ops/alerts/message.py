"""One alert, before any channel gives it a shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from ops.health.finding import Finding, Id, Severity
from ops.recovery.decide import Decision


@dataclass(frozen=True)
class Alert:
    """What is wrong, since when, what was tried, and where the runbook speaks of it."""

    namespace: str
    finding: Id
    target: str
    severity: Severity
    sentence: str
    tried: str
    runbook: str
    since: datetime
    resolved: bool = False

    @property
    def fingerprint(self) -> str:
        """The same for the same finding of the same target, whatever its sentence says by now."""
        return hashlib.sha256(f"{self.namespace}\0{self.finding}\0{self.target}".encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """One line."""
        return f"[{'resolved' if self.resolved else self.severity}] {self.finding}: {self.target}"


def alert(decision: Decision, namespace: str, since: datetime, runbook: str, tried: str) -> Alert:
    """The alert of a finding; what is held back is told beside what was tried."""
    finding: Finding = decision.finding
    what = "; ".join(part for part in (tried, decision.reason if decision.repair is None else "") if part)
    return Alert(
        namespace=namespace,
        finding=finding.id,
        target=finding.target,
        severity=finding.severity,
        sentence=finding.sentence,
        tried=what,
        runbook=f"{runbook}#{finding.id}",
        since=since,
    )
