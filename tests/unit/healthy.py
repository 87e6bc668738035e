"""A healthy platform as it is observed, to break one thing at a time in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ops.health.observed import (
    Application,
    Backup,
    Dashboard,
    Node,
    Observed,
    Pod,
    Probe,
    RayCluster,
    RayJob,
    RayService,
)
from ops.health.settings import HealthSettings

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SETTINGS = HealthSettings(clusters=("shared",), services=("chat",))


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def pod(name: str, role: str, cluster: str = "", **more: Any) -> Pod:
    return replace(Pod(name, f"uid-{name}", role, cluster, "Running", True, ago(hours=5)), **more)


SHARED = RayCluster("shared", "uid-shared", "", True, ago(hours=5), autoscaling=True, wanted_workers=1, ready_workers=1)
CHAT = RayCluster("chat-x7k2p", "uid-chat", "RayService/chat", True, ago(hours=5), wanted_workers=2, ready_workers=2)
RUNNING = Application("chat", "RUNNING", "")
JOB = RayJob("train-1", "Running", ago(hours=4), "train-1-abcde")

HEALTHY = Observed(
    at=NOW,
    operator=Probe("ray-system/kuberay-operator"),
    pods=(
        pod("shared-head", "head", "shared"),
        pod("shared-w1", "worker", "shared"),
        pod("chat-head", "head", "chat-x7k2p"),
        pod("chat-w1", "worker", "chat-x7k2p"),
        pod("chat-w2", "worker", "chat-x7k2p"),
        pod("gateway-1", "gateway"),
        pod("gateway-2", "gateway"),
    ),
    clusters=(SHARED, CHAT),
    services=(RayService("chat", True, ago(hours=5), "chat-x7k2p", applications=(RUNNING,)),),
    jobs=(JOB,),
    nodes=(Node("node-1", True),),
    dashboards={
        "shared": Dashboard(Probe("http://shared")),
        "chat-x7k2p": Dashboard(Probe("http://chat"), applications=(RUNNING,)),
    },
    serving={"chat": Probe("http://chat-serve/-/healthz")},
    gateway=Probe("http://gateway/readyz"),
    tracking=Probe("http://mlflow/health"),
    stores=(Probe("s3://backups"),),
    certificates={"api:443": NOW + timedelta(days=90)},
    backup=Backup("backup-20261123-113000-abcd", ago(minutes=30)),
    drill=ago(days=2),
)


def with_pod(name: str, **changes: Any) -> Observed:
    """One pod otherwise."""
    assert any(one.name == name for one in HEALTHY.pods)
    return replace(HEALTHY, pods=tuple(replace(one, **changes) if one.name == name else one for one in HEALTHY.pods))


def with_cluster(name: str, **changes: Any) -> Observed:
    """One RayCluster otherwise."""
    assert HEALTHY.cluster(name)
    rows = (replace(row, **changes) if row.name == name else row for row in HEALTHY.clusters)
    return replace(HEALTHY, clusters=tuple(rows))


def without_pod(name: str) -> Observed:
    """One pod gone."""
    assert any(one.name == name for one in HEALTHY.pods)
    return replace(HEALTHY, pods=tuple(one for one in HEALTHY.pods if one.name != name))


def with_dashboard(name: str, dashboard: Dashboard) -> Observed:
    """One dashboard otherwise."""
    return replace(HEALTHY, dashboards={**HEALTHY.dashboards, name: dashboard})
