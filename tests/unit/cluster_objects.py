"""Kubernetes objects as KubeRay 1.7, kubelet, scheduler and API server leave them, cut down to what is read."""

from __future__ import annotations

from typing import Any

RUN = "train-20261122-101500-3fa9"
CLUSTER = f"{RUN}-x7k2p"
NAMESPACE = "haetsal"


def ray_job(
    deployment: str | None = None, job: str = "", /, *, labels: dict[str, str] | None = None, **status: Any
) -> Any:
    """A RayJob; `deployment` and `job` are its two states, None for one that the operator has not touched."""
    thing: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": RUN,
            "namespace": NAMESPACE,
            "uid": "0b9f6a5e-4a39-4c6e-93a8-6f2c7b1d7a11",
            "creationTimestamp": "2026-11-22T10:15:02Z",
            "labels": {"haetsal/run": RUN} | (labels or {}),
        },
        "spec": {"backoffLimit": 2, "submissionMode": "K8sJobMode"},
    }
    if deployment is not None:
        known = {"rayClusterName": CLUSTER, "jobId": f"{RUN}-q9z4t", "failed": 0, "succeeded": 0}
        thing["status"] = known | {"jobDeploymentStatus": deployment, "jobStatus": job} | status
    return thing


def ray_cluster(name: str = CLUSTER, *conditions: dict[str, str]) -> Any:
    """A RayCluster with status conditions."""
    labels = {"ray.io/originated-from-cr-name": RUN, "ray.io/originated-from-crd": "RayJob"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": list(conditions)}}


def ray_pod(
    name: str = f"{CLUSTER}-training-worker-5d8xk",
    *,
    phase: str = "Pending",
    gpus: int = 0,
    waiting: tuple[str, str] | None = None,
    ended: dict[str, Any] | None = None,
    conditions: list[dict[str, str]] | None = None,
    cluster: str = CLUSTER,
    made: str = "2026-11-22T10:15:20Z",
    **status: Any,
) -> Any:
    """A pod of the Ray cluster. `waiting` is reason and message of its container, `ended` how that ended before."""
    limits = {"cpu": "7", "memory": "28Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    image = "registry.example.com/haetsal/job-gpu:0.1.0"
    container: dict[str, Any] = {"name": "ray", "state": {}, "lastState": {}, "restartCount": 0, "image": image}
    if waiting:
        container["state"] = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    if ended:
        container["lastState"] = {"terminated": ended}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": made,
            "labels": {"ray.io/cluster": cluster, "ray.io/node-type": "worker", "haetsal/cluster": RUN},
        },
        "spec": {"containers": [{"name": "ray", "image": image, "resources": {"limits": limits, "requests": limits}}]},
        "status": {"phase": phase, "containerStatuses": [container], "conditions": conditions or []} | status,
    }


def unscheduled(message: str, reason: str = "Unschedulable") -> list[dict[str, str]]:
    """The scheduler's condition."""
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]


READY = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]


def event(
    kind: str, name: str, reason: str, message: str, *, type_: str = "Warning", at: str = "2026-11-22T10:16:00Z"
) -> Any:
    """An event (core/v1)."""
    return {
        "involvedObject": {"kind": kind, "name": name, "namespace": NAMESPACE},
        "reason": reason,
        "message": message,
        "type": type_,
        "lastTimestamp": at,
    }
