"""A round for people, for programs, and for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ops.health.finding import Id, Severity
from ops.health.rounds import Report
from ops.recovery.decide import Decision

HEALTHY, WARNINGS, CRITICAL = 0, 10, 11
"""Exit codes of a single look, beside those that every command has (README.md)."""


def table(report: Report, runbook: str) -> str:
    """One block a finding: severity, id, target; what is wrong; what is done about it; where the runbook is."""
    lines = []
    for one in report.decisions:
        finding = one.finding
        lines.append(f"{finding.severity:<9} {finding.id:<22} {finding.target}")
        lines.append(f"{'':10}{finding.sentence}")
        lines += [f"{'':10}{line}" for line in _done(report, one)]
        lines.append(f"{'':10}{runbook}#{finding.id}")
    lines += [f"checker   {problem}" for problem in report.problems]
    counts = ", ".join(f"{_count(report, severity)} {severity}" for severity in reversed(Severity))
    return "\n".join([*lines, f"{report.at:%Y-%m-%d %H:%M:%S %Z}: {counts if report.decisions else 'healthy'}"])


def as_json(report: Report, runbook: str) -> str:
    """The same as one line of JSON."""
    rows: list[dict[str, str | None]] = []
    for one in report.decisions:
        finding = one.finding
        row: dict[str, str | None] = {
            "id": finding.id,
            "target": finding.target,
            "severity": finding.severity,
            "sentence": finding.sentence,
        }
        row |= {"scope": finding.scope, "runbook": f"{runbook}#{finding.id}", "repair": str(one.repair or "") or None}
        rows.append(row | {"reason": one.reason, "outcome": report.outcomes.get(finding.scope) if one.repair else None})
    tree: dict[str, Any] = {
        "at": report.at.isoformat(),
        "healthy": not rows,
        "findings": rows,
        "problems": report.problems,
    }
    return json.dumps(tree, ensure_ascii=False)


def exit_code(report: Report) -> int:
    """0 healthy, 10 warnings only, 11 something critical."""
    if not report.decisions:
        return HEALTHY
    return CRITICAL if _count(report, Severity.CRITICAL) else WARNINGS


def metrics(report: Report) -> dict[str, float]:
    """Values of the metrics of health."""
    ids = [finding.id for finding in report.findings]
    return {
        "health_last_check_timestamp_seconds": report.at.timestamp(),
        "health_findings_critical": float(_count(report, Severity.CRITICAL)),
        "health_findings_warning": float(_count(report, Severity.WARNING)),
        "health_repairs_total": float(report.repairs_ever),
        "health_circuits_open": float(ids.count(Id.REPAIRS_STOPPED)),
        "health_channels_failing": float(ids.count(Id.CHANNEL_DOWN)),
    }


def _done(report: Report, one: Decision) -> Sequence[str]:
    if one.repair:
        return [f"{one.repair} ({one.reason}): {report.outcomes.get(one.finding.scope, 'would be done')}"]
    return [one.reason] if one.reason else []


def _count(report: Report, severity: Severity) -> int:
    return sum(finding.severity is severity for finding in report.findings)
