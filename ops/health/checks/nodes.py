"""Nodes of Kubernetes: readiness, pressure, interruptions, GPUs, disks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Observed
from ops.health.settings import HealthSettings

_XID = re.compile(r"Xid\s*\([^)]*\)\s*:\s*(\d+)|Xid\s*:?\s*(\d+)", re.IGNORECASE)
_BY_PROGRAMS = frozenset({13, 31, 43, 45, 68})
"""Xids that a program causes, and a restart of it ends. Source: NVIDIA, "XID Errors", column user app error."""


def nodes(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Conditions and taints."""
    for node in observed.nodes:
        target = f"Node/{node.name}"
        if node.interrupted:
            sentence = f"{node.name}: {node.interrupted}; what runs there moves, runs resume from their checkpoint"
            yield Finding(Id.SPOT_INTERRUPTED, target, Severity.WARNING, sentence)
        elif not node.ready:
            sentence = f"node {node.name} is not ready" + (f": {node.problem}" if node.problem else "")
            yield Finding(Id.NODE_NOT_READY, target, Severity.CRITICAL, sentence)
        for pressure in node.pressure:
            if pressure != "Disk":
                sentence = f"node {node.name} is short of {'processes' if pressure == 'PID' else 'memory'}"
                yield Finding(
                    Id.NODE_PRESSURE, f"{target}/{pressure}", Severity.WARNING, f"{sentence}; pods are evicted"
                )
        if node.gpu_fault:
            known = xid(node.gpu_fault)
            severity = Severity.WARNING if known in _BY_PROGRAMS else Severity.CRITICAL
            what = f"Xid {known}" if known is not None else "a GPU fault"
            yield Finding(Id.GPU_FAULT, target, severity, f"node {node.name} reports {what}: {node.gpu_fault}")


def disks(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Full disks, by the node and by the pods that lost their place."""
    for node in observed.nodes:
        if "Disk" in node.pressure:
            sentence = f"the disk of node {node.name} is full; pods are evicted"
            yield Finding(Id.DISK_FULL, f"Node/{node.name}", Severity.CRITICAL, sentence)
    for pod in observed.pods:
        if pod.disk and not pod.leaving:
            sentence = f"{pod.name} was evicted because a disk was full" + (f": {pod.obstacle}" if pod.obstacle else "")
            yield Finding(Id.DISK_FULL, f"Pod/{pod.name}", Severity.WARNING, sentence)


def xid(said: str) -> int | None:
    """Number of the Xid in what the driver or an agent wrote."""
    found = _XID.search(said)
    return int(found.group(1) or found.group(2)) if found else None
