"""The checker on a real API server and real HTTP servers: faults it repairs, faults it tells, faults of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import apiserver
import listener
import pytest
from faults import FAULTS
from living import Living, audit_of, rounds

from ops.alerts.channels import Webhook
from ops.health.rounds import Report

_numbers = itertools.count()


@pytest.fixture
def living(kube: apiserver.Kube, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Living]:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
    with ExitStack() as stack:
        it = stack.enter_context(Living(kube, f"health-{next(_numbers)}", bucket, stack).alive())
        it.back_up()
        yield it


@pytest.mark.parametrize("name", FAULTS)
def test_fault(living: Living, name: str) -> None:
    """From a healthy platform: the fault is found, repaired by the smallest step that helps or told, and audited."""
    fault, settings = FAULTS[name], living.settings()
    with listener.listen() as hook:
        checker = living.checker(settings, [Webhook(hook.url, 1)])
        assert checker.round(lambda: None).findings == []
        fault.inject(living)
        found = rounds(checker, lambda report: fault.finding in {one.id for one in report.findings})
        if not fault.steps:
            rounds(checker, lambda _: bool(hook.asked))
            told = [alert for asked in hook.asked for alert in asked.json["alerts"]]
            assert fault.finding in {alert["finding"] for alert in told}
            assert all(alert["runbook"].endswith(f"#{alert['finding']}") for alert in told)
            assert audit_of(living, settings) == []
            return
        found += rounds(checker, lambda report: not report.findings)
        made = [one.repair.step for report in found for one in report.decisions if one.repair]
        assert made == list(fault.steps)
        events = [(row["event"], row["what"].partition(" ")[0]) for row in audit_of(living, settings)]
        assert events.count(("decided", fault.steps[0].partition(" ")[0])) == 1
        assert [event for event, _ in events].count("ended") == len(fault.steps)
        assert events[-1][0] == "healed"
        assert hook.asked, "what was repaired is told, too"
