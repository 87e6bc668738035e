"""The checker on a real API server and real HTTP servers: faults it repairs, faults it tells, faults of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import apiserver
import boto3
import listener
import pytest
from faults import FAULTS
from living import Living, audit_of, rounds
from platform_under_test import point_at

from ops.alerts.channels import Webhook
from ops.health.rounds import Report

REPAIRED = [name for name, fault in FAULTS.items() if fault.steps]


@pytest.fixture(scope="module")
def alive(kube: apiserver.Kube, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """One platform for all tests: each leaves it healthy."""
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        point_at(s3, environment)
        environment.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path_factory.mktemp("health") / "kubeconfig")))
        boto3.client("s3").create_bucket(Bucket="health")
        it = stack.enter_context(Living(kube, "health", "s3://health/haetsal", stack).alive())
        it.back_up()
        yield it


@pytest.fixture
def living(alive: Living) -> Living:
    """That platform, with a checker that remembers nothing."""
    alive.forget()
    return alive


@pytest.mark.parametrize("name", REPAIRED)
def test_fault_that_is_repaired(living: Living, name: str) -> None:
    """From a healthy platform: found, repaired by the smallest step that helps, audited, told."""
    fault, settings = FAULTS[name], living.settings()
    with listener.listen() as hook:
        checker = living.checker(settings, [Webhook(hook.url, 1)])
        assert checker.round(lambda: None).findings == []
        fault.inject(living)
        found = rounds(checker, lambda report: fault.finding in ids(report))
        found += rounds(checker, lambda report: not report.findings)
    made = [one.repair.step for report in found for one in report.decisions if one.repair]
    assert made == list(fault.steps)
    log = audit_of(living, settings)
    assert [row["event"] for row in log] == ["decided", "ended"] * len(fault.steps) + ["healed"]
    assert [row["what"].startswith(step) for row, step in zip(log[::2], fault.steps, strict=False)] == [True] * len(
        made
    )
    assert {row["finding"] for row in log} >= {fault.finding}
    assert f"{fault.steps[0]} " in hook.asked[0].json["alerts"][0]["tried"]


def test_faults_that_are_told(living: Living) -> None:
    """All at once: each is told with its line of the runbook, and nothing is done."""
    told_only = {name: fault for name, fault in FAULTS.items() if not fault.steps}
    settings = living.settings()
    with listener.listen() as hook:
        checker = living.checker(settings, [Webhook(hook.url, 1)])
        assert checker.round(lambda: None).findings == []
        for fault in told_only.values():
            fault.inject(living)
        wanted = {fault.finding for fault in told_only.values()}
        told: set[str] = set()
        for report in rounds(checker, lambda report: wanted <= ids(report) and len(hook.asked) > 0):
            assert report.outcomes == {}
        for asked in hook.asked:
            for alert in asked.json["alerts"]:
                assert alert["runbook"].endswith(f"#{alert['finding']}")
                told.add(alert["finding"])
    assert told == wanted
    assert audit_of(living, settings) == []
    living.heal()
    rounds(checker, lambda report: not report.findings)


def ids(report: Report) -> set[str]:
    return {one.id for one in report.findings}
