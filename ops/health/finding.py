"""What a check says: one thing that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How urgent it is."""

    WARNING = "warning"
    """Look at it today."""
    CRITICAL = "critical"
    """Something does not work, or cannot be rebuilt, now."""


class Id(StrEnum):
    """Every kind of finding, causes before what follows from them. Each is a heading of ops/RUNBOOK.md."""

    SOURCE_UNSEEN = "source-unseen"
    OPERATOR_DOWN = "operator-down"
    CLUSTER_MISSING = "cluster-missing"
    SERVICE_MISSING = "service-missing"
    HEAD_DOWN = "head-down"
    DASHBOARD_DOWN = "dashboard-down"
    GCS_DOWN = "gcs-down"
    AUTOSCALER_DOWN = "autoscaler-down"
    APPLICATION_UNHEALTHY = "application-unhealthy"
    APPLICATION_STUCK = "application-stuck"
    SERVE_DOWN = "serve-down"
    WORKER_DOWN = "worker-down"
    WORKERS_MISSING = "workers-missing"
    CLUSTER_NOT_READY = "cluster-not-ready"
    SERVICE_NOT_READY = "service-not-ready"
    GATEWAY_DOWN = "gateway-down"
    GATEWAY_POD_DOWN = "gateway-pod-down"
    TRACKING_DOWN = "tracking-down"
    STORE_DOWN = "store-down"
    RUN_STUCK = "run-stuck"
    SUBMITTER_FAILING = "submitter-failing"
    SPOT_INTERRUPTED = "spot-interrupted"
    NODE_NOT_READY = "node-not-ready"
    NODE_PRESSURE = "node-pressure"
    DISK_FULL = "disk-full"
    GPU_FAULT = "gpu-fault"
    CERTIFICATE_ENDING = "certificate-ending"
    BACKUP_STALE = "backup-stale"
    BACKUP_DAMAGED = "backup-damaged"
    DRILL_STALE = "drill-stale"
    FLAPPING = "flapping"
    REPAIRS_STOPPED = "repairs-stopped"
    AUDIT_BEHIND = "audit-behind"
    CHANNEL_DOWN = "channel-down"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    `target` is what the sentence speaks of (`Pod/chat-head`), `scope` what a repair of it would disturb
    (`RayService/chat`): repairs are counted by scope.
    """

    id: Id
    target: str
    severity: Severity
    sentence: str
    scope: str = ""

    def __post_init__(self) -> None:
        if not self.scope:
            object.__setattr__(self, "scope", self.target)

    @property
    def key(self) -> str:
        """What makes it the same finding as one seen before, whatever its sentence says by now."""
        return f"{self.id}:{self.target}"
