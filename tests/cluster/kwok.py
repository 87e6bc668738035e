"""Nodes whose kubelet is KWOK's: pods on them become ready at once and run nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.kube import Kube

ANNOTATION = "kwok.x-k8s.io/node"
FAKE, DOOMED = "fake", "doomed"
"""Its values: which KWOK a node belongs to."""
OUT_OF_SERVICE = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
"""Says that a node which is not ready will not come back: its pods are then let go."""
NODES = "/api/v1/nodes"
ZONE = "topology.kubernetes.io/zone"
STAGES = Path(__file__).with_name("stages.yaml")


def node(
    name: str,
    pool: str = "",
    gpus: int = 0,
    cpu: str = "64",
    memory: str = "512Gi",
    zone: str = "zone-a",
    kubelet: str = FAKE,
) -> dict[str, Any]:
    """A node of a pool, labelled and tainted as terraform/platform/node_pools.py does it."""
    capacity = {"cpu": cpu, "memory": memory, "ephemeral-storage": "4Ti", "pods": "1000"}
    capacity |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", ZONE: zone}
    taints = [{"key": pool, "value": "true", "effect": "NoSchedule"}] if pool.startswith("gpu-") else []
    return {
        "metadata": {"name": name, "labels": labels | ({"node-type": pool} if pool else {}),
                     "annotations": {ANNOTATION: kubelet}},
        "spec": {"taints": taints},
        "status": {"capacity": capacity, "allocatable": capacity},
    }  # fmt: skip


POOLS = (
    node("any"),
    node("system-1", pool="system"),
    node("gpu-training-1", pool="gpu-training", gpus=8),
    node("gpu-inference-1", pool="gpu-inference", gpus=8),
    node("cpu-preprocessing-1", pool="cpu-preprocessing"),
)
"""A node of no pool, and one of each that the charts name."""


def add(kube: Kube, *nodes: dict[str, Any]) -> None:
    """Register the nodes that are not there."""
    for body in nodes:
        if kube.ask("GET", f"{NODES}/{body['metadata']['name']}") is None:
            kube.ask("POST", NODES, body)


def remove(kube: Kube, *names: str) -> None:
    for name in names:
        kube.ask("DELETE", f"{NODES}/{name}")


def taint(kube: Kube, name: str, taint: dict[str, str]) -> None:
    """Add a taint to a node."""
    found = kube.ask("GET", f"{NODES}/{name}")["spec"].get("taints") or []
    kube.ask("PATCH", f"{NODES}/{name}", {"spec": {"taints": [*found, taint]}}, Kube.MERGE)


@contextmanager
def closed(kube: Kube) -> Iterator[None]:
    """For as long as the block runs, no new pod comes to KWOK's nodes."""
    names = [item["metadata"]["name"] for item in kube.items(NODES) if ANNOTATION in item["metadata"]["annotations"]]
    _cordon(kube, names, True)
    try:
        yield
    finally:
        _cordon(kube, names, False)


def _cordon(kube: Kube, names: list[str], value: bool) -> None:
    for name in names:
        kube.ask("PATCH", f"{NODES}/{name}", {"spec": {"unschedulable": value}}, Kube.MERGE)
