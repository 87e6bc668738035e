"""Each check: one thing broken in a healthy platform is one finding, and what only looks like it is none."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from healthy import (
    HEALTHY,
    JOB,
    NOW,
    RUNNING,
    SETTINGS,
    ago,
    with_cluster,
    with_dashboard,
    with_pod,
    without_pod,
)

from ops.health.checks import check
from ops.health.checks.nodes import xid
from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Application, Backup, Dashboard, Node, Observed, Probe

SERVICE = HEALTHY.services[0]
BROKEN = Application("chat", "UNHEALTHY", "replica died")
XID_79 = "XidError: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."
LOST = {"ready": False, "was_ready": True}


def told(observed: Observed) -> list[Finding]:
    return check(observed, SETTINGS)


CASES: dict[str, tuple[Observed, Id, str, str]] = {
    "operator": (
        replace(HEALTHY, operator=Probe("ray-system/kuberay-operator", "none of its replicas is available")),
        Id.OPERATOR_DOWN, "Deployment/ray-system/kuberay-operator", "none of its replicas",
    ),
    "a source": (replace(HEALTHY, unseen={"nodes": "403"}, nodes=()), Id.SOURCE_UNSEEN, "nodes", "403"),
    "cluster gone": (
        replace(HEALTHY, clusters=HEALTHY.clusters[1:], dashboards={}), Id.CLUSTER_MISSING, "RayCluster/shared", "gone"
    ),
    "recreation unfinished": (
        replace(HEALTHY, unfinished=frozenset({"RayCluster/other"})), Id.CLUSTER_MISSING, "RayCluster/other", "gone"
    ),
    "service gone": (replace(HEALTHY, services=(), serving={}), Id.SERVICE_MISSING, "RayService/chat", "gone"),
    "head keeps ending": (
        with_pod("chat-head", ready=False, looping=True, obstacle="out of memory"),
        Id.HEAD_DOWN, "Pod/chat-head", "out of memory",
    ),
    "head ended": (with_pod("chat-head", ready=False, phase="Failed"), Id.HEAD_DOWN, "Pod/chat-head", "has ended"),
    "head was ready": (with_pod("chat-head", **LOST), Id.HEAD_DOWN, "Pod/chat-head", "was ready"),
    "head never ready": (with_pod("chat-head", ready=False), Id.HEAD_DOWN, "Pod/chat-head", "for 5 h"),
    "no head": (without_pod("chat-head"), Id.HEAD_DOWN, "RayCluster/chat-x7k2p", "no head pod"),
    "dashboard": (
        with_dashboard("shared", Dashboard(Probe("http://shared", "no answer within 5 s"))),
        Id.DASHBOARD_DOWN, "RayCluster/shared", "no answer",
    ),
    "token refused": (
        with_dashboard("shared", Dashboard(Probe("http://shared", "answered 401", 401))),
        Id.SOURCE_UNSEEN, "dashboard of shared", "RAY_AUTH_TOKEN",
    ),
    "GCS": (
        with_dashboard("shared", Dashboard(Probe("http://shared"), "answered 503")),
        Id.GCS_DOWN, "RayCluster/shared", "503",
    ),
    "autoscaler": (
        with_pod("shared-head", waiting=frozenset({"autoscaler"})), Id.AUTOSCALER_DOWN, "Pod/shared-head", "autoscaler"
    ),
    "application, by the dashboard": (
        with_dashboard("chat-x7k2p", Dashboard(Probe("http://chat"), applications=(BROKEN,))),
        Id.APPLICATION_UNHEALTHY, "RayService/chat/chat", "replica died",
    ),
    "application, by the operator": (
        replace(HEALTHY, dashboards={}, services=(replace(SERVICE, applications=(BROKEN,)),)),
        Id.APPLICATION_UNHEALTHY, "RayService/chat/chat", "UNHEALTHY",
    ),
    "application stuck": (
        with_dashboard(
            "chat-x7k2p",
            Dashboard(Probe("http://chat"), applications=(replace(RUNNING, status="DEPLOYING", since=ago(hours=1)),)),
        ),
        Id.APPLICATION_STUCK, "RayService/chat/chat", "for 60 min",
    ),
    "serve": (
        replace(HEALTHY, serving={"chat": Probe("http://s/-/healthz", "the connection is refused")}),
        Id.SERVE_DOWN, "RayService/chat", "refused",
    ),
    "worker": (with_pod("chat-w2", ready=False, looping=True), Id.WORKER_DOWN, "Pod/chat-w2", "keeps ending"),
    "too few workers": (without_pod("chat-w2"), Id.WORKERS_MISSING, "RayCluster/chat-x7k2p", "1 of 2"),
    "cluster does not come up": (
        with_cluster("shared", up=False), Id.CLUSTER_NOT_READY, "RayCluster/shared", "for 5 h"
    ),
    "service turned unready": (
        replace(HEALTHY, services=(replace(SERVICE, up=False, since=ago(minutes=2)),), serving={}),
        Id.SERVICE_NOT_READY, "RayService/chat", "for 2 min",
    ),
    "gateway": (replace(HEALTHY, gateway=Probe("http://g", "answered 503", 503)), Id.GATEWAY_DOWN,
                "Deployment/gateway", "503"),
    "gateway pod": (with_pod("gateway-2", **LOST), Id.GATEWAY_POD_DOWN, "Pod/gateway-2", "was ready"),
    "MLflow": (replace(HEALTHY, tracking=Probe("http://m", "answered 500", 500)), Id.TRACKING_DOWN, "MLflow", "500"),
    "S3": (replace(HEALTHY, stores=(Probe("s3://b", "access denied"),), backup=None, unseen={"backups": "denied"}),
           Id.STORE_DOWN, "s3://b", "access denied"),
    "run stuck": (
        replace(HEALTHY, jobs=(replace(JOB, status="Initializing"),)), Id.RUN_STUCK, "RayJob/train-1", "Initializing"
    ),
    "submitter": (
        replace(HEALTHY, jobs=(replace(JOB, submitter_failures=2),)), Id.SUBMITTER_FAILING, "RayJob/train-1", "2 times"
    ),
    "spot": (
        replace(HEALTHY, nodes=(Node("n", False, interrupted="AWS takes the spot node back in two minutes"),)),
        Id.SPOT_INTERRUPTED, "Node/n", "two minutes",
    ),
    "node": (replace(HEALTHY, nodes=(Node("n", False, "Kubelet stopped"),)), Id.NODE_NOT_READY, "Node/n", "Kubelet"),
    "memory": (replace(HEALTHY, nodes=(Node("n", True, pressure=("Memory",)),)), Id.NODE_PRESSURE, "Node/n/Memory",
               "short of memory"),
    "disk of a node": (replace(HEALTHY, nodes=(Node("n", True, pressure=("Disk",)),)), Id.DISK_FULL, "Node/n", "full"),
    "GPU": (replace(HEALTHY, nodes=(Node("n", True, gpu_fault=XID_79),)), Id.GPU_FAULT, "Node/n", "Xid 79"),
    "certificate": (
        replace(HEALTHY, certificates={"api:443": NOW + timedelta(days=3)}), Id.CERTIFICATE_ENDING, "api:443", "3 days"
    ),
    "certificate ended": (
        replace(HEALTHY, certificates={"api:443": ago(days=1)}), Id.CERTIFICATE_ENDING, "api:443", "ended on 2026-11-22"
    ),
    "backup": (replace(HEALTHY, backup=Backup("backup-1", ago(hours=4))), Id.BACKUP_STALE, "backup", "4 h old"),
    "no backup": (replace(HEALTHY, backup=Backup()), Id.BACKUP_STALE, "backup", "no Completed"),
    "damaged backup": (
        replace(HEALTHY, backup=Backup("backup-1", ago(hours=1), "sha256")), Id.BACKUP_DAMAGED, "backup", "sha256"
    ),
    "drill": (replace(HEALTHY, drill=ago(days=9)), Id.DRILL_STALE, "drill", "9 days"),
    "no drill": (replace(HEALTHY, drill=None), Id.DRILL_STALE, "drill", "ever"),
}  # fmt: skip


def test_a_healthy_platform_has_no_finding() -> None:
    assert told(HEALTHY) == []


@pytest.mark.parametrize("name", CASES)
def test_one_fault_is_one_finding(name: str) -> None:
    observed, id_, target, words = CASES[name]
    found = told(observed)
    assert [(one.id, one.target) for one in found] == [(id_, target)], found
    assert words in found[0].sentence


QUIET: dict[str, Observed] = {
    "a head that starts": with_pod("chat-head", ready=False, since=ago(minutes=3)),
    "a worker that waits for its node": with_pod("chat-w2", ready=False, phase="Pending", since=ago(minutes=10)),
    "a head that is being replaced": with_pod("chat-head", ready=False, leaving=True),
    "a cluster that sleeps": with_cluster("shared", suspended=True, up=False),
    "a cluster that starts": with_cluster("shared", up=False, since=ago(minutes=5)),
    "a run that trains for days": replace(HEALTHY, jobs=(replace(JOB, since=ago(days=4)),)),
    "a run that sleeps": replace(HEALTHY, jobs=(replace(JOB, status="Suspended", since=ago(days=4)),)),
    "an application that starts": with_dashboard(
        "chat-x7k2p",
        Dashboard(Probe("http://chat"), applications=(replace(RUNNING, status="DEPLOYING", since=ago(minutes=1)),)),
    ),
}


@pytest.mark.parametrize("name", QUIET)
def test_what_is_under_way_is_no_finding(name: str) -> None:
    assert told(QUIET[name]) == []


def test_without_drills_none_is_missed() -> None:
    assert check(replace(HEALTHY, drill=None), SETTINGS.model_copy(update={"drill_age_s": None})) == []


def test_blind_nothing_is_called_gone() -> None:
    """An API server that is away must not look like a platform that is gone."""
    kinds = dict.fromkeys(("pods", "RayClusters", "RayServices", "RayJobs", "nodes", "operator"), "no answer")
    blind = Observed(at=NOW, unseen=kinds, backup=HEALTHY.backup, drill=HEALTHY.drill)
    assert {one.id for one in told(blind)} == {Id.SOURCE_UNSEEN}
    without_pods = replace(HEALTHY, unseen={"pods": "no answer"}, pods=())
    assert {one.id for one in told(without_pods)} == {Id.SOURCE_UNSEEN}


def test_causes_come_before_what_follows_from_them() -> None:
    worst = replace(
        with_pod("chat-head", ready=False, phase="Failed"),
        operator=Probe("o", "down"),
        serving={"chat": Probe("s", "refused")},
        gateway=Probe("g", "answered 503", 503),
    )
    assert [one.id for one in told(worst)] == [Id.OPERATOR_DOWN, Id.HEAD_DOWN, Id.SERVE_DOWN, Id.GATEWAY_DOWN]
    assert [one.scope for one in told(worst)][1:3] == ["RayService/chat"] * 2, "one repair can be the cure of both"


@pytest.mark.parametrize(
    ("said", "number", "severity"),
    [
        (XID_79, 79, Severity.CRITICAL),
        ("NvidiaXID48Error: double bit", 48, Severity.CRITICAL),
        ("GpuXid: Xid: 31", 31, Severity.WARNING),
        ("NvidiaNVLinkError: link down", None, Severity.CRITICAL),
    ],
)
def test_xids(said: str, number: int | None, severity: Severity) -> None:
    assert xid(said) == number
    (found,) = told(replace(HEALTHY, nodes=(Node("n", True, gpu_fault=said),)))
    assert found.severity is severity


def test_every_finding_is_in_the_runbook_and_the_other_way_round() -> None:
    path = Path(__file__).resolve().parents[2] / "ops/RUNBOOK.md"
    ours, _, _ = path.read_text(encoding="utf-8").partition("\n# Alerts of Prometheus\n")
    headings = re.findall(r"^## (\S+)$", ours, re.MULTILINE)
    assert sorted(headings) == sorted(Id), set(headings) ^ set(Id)


def test_every_finding_of_a_check_is_in_the_table() -> None:
    of_the_round = {Id.FLAPPING, Id.REPAIRS_STOPPED, Id.AUDIT_BEHIND, Id.CHANNEL_DOWN}
    assert {case[1] for case in CASES.values()} == set(Id) - of_the_round
