"""Kubernetes objects, as dictionaries, turned into what the checks look at. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from jobs.cluster import diagnosis, obstacles
from ops.health.observed import Application, Node, Pod, Probe, RayCluster, RayJob, RayService
from ops.kinds import ORIGIN_LABEL
from ops.kube import Object
from ops.restore.health import is_up

_ORIGIN_NAME = "ray.io/originated-from-cr-name"
_ENDED = ("Complete", "Failed", "ValidationFailed")
_INTERRUPTIONS = {
    "aws-node-termination-handler/spot-itn": "AWS takes the spot node back in two minutes",
    "aws-node-termination-handler/rebalance-recommendation": "AWS says that the spot node is likely to be taken back",
    "aws-node-termination-handler/scheduled-maintenance": "AWS announced maintenance of the node",
    "aws-node-termination-handler/asg-lifecycle-termination": "the node group is taking the node down",
    "karpenter.sh/disrupted": "Karpenter is taking the node down",
}
"""Taints, by those who set them."""
_GPU = re.compile(r"gpu|accelerat|nvidia|xid", re.IGNORECASE)
_DISK = re.compile(r"ephemeral|disk", re.IGNORECASE)


def moment(text: str) -> datetime:
    """A time as the API server writes it."""
    return datetime.fromisoformat(text)


def pod(item: Object, events: Iterable[Object]) -> Pod:
    """A pod, and what keeps it from running according to the events about it."""
    metadata, status = item["metadata"], item.get("status") or {}
    labels = metadata.get("labels") or {}
    role = labels.get("ray.io/node-type") or ("gateway" if labels.get("app.kubernetes.io/name") == "gateway" else "")
    containers = status.get("containerStatuses") or []
    waiting = {container["name"] for container in containers if "running" not in (container.get("state") or {})}
    readiness = _condition(item, "Ready")
    ready = readiness.get("status") == "True"
    started = [
        container["state"]["running"]["startedAt"] for container in containers if container["name"] not in waiting
    ]
    obstacle = None
    if not ready:
        mine = tuple(event for event in events if event["involvedObject"].get("name") == metadata["name"])
        obstacle = obstacles.find(diagnosis.Observed(None, pods=(item,), events=mine))
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        role=role,
        cluster=labels.get("ray.io/cluster", ""),
        phase=status.get("phase") or "Pending",
        ready=ready,
        since=moment(metadata["creationTimestamp"]),
        # A pod that starts turns unready before its containers run; one that was ready turns unready after.
        was_ready=bool(started) and moment(readiness["lastTransitionTime"]) > moment(max(started)),
        looping=any(_reason(container) == "CrashLoopBackOff" for container in containers),
        waiting=frozenset(waiting),
        obstacle=obstacle.sentence if obstacle else "",
        disk=status.get("reason") == "Evicted" and bool(_DISK.search(status.get("message") or "")),
        leaving="deletionTimestamp" in metadata,
        node=item["spec"].get("nodeName") or "",
    )


def ray_cluster(item: Object) -> RayCluster:
    """A RayCluster."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    labels = metadata.get("labels") or {}
    return RayCluster(
        name=metadata["name"],
        uid=metadata["uid"],
        owner=f"{labels[ORIGIN_LABEL]}/{labels.get(_ORIGIN_NAME, '')}" if ORIGIN_LABEL in labels else "",
        up=is_up("RayCluster", item),
        since=_changed(item, "RayClusterProvisioned"),
        suspended=bool(spec.get("suspend")),
        leaving="deletionTimestamp" in metadata,
        fault_tolerant="gcsFaultToleranceOptions" in spec
        or (metadata.get("annotations") or {}).get("ray.io/ft-enabled") == "true",
        autoscaling=bool(spec.get("enableInTreeAutoscaling")),
        wanted_workers=int(status.get("desiredWorkerReplicas") or 0),
        ready_workers=int(status.get("readyWorkerReplicas") or 0),
    )


def ray_service(item: Object) -> RayService:
    """A RayService."""
    metadata, status = item["metadata"], item.get("status") or {}
    active = status.get("activeServiceStatus") or {}
    return RayService(
        name=metadata["name"],
        up=is_up("RayService", item),
        since=_changed(item, "Ready"),
        cluster=active.get("rayClusterName") or "",
        suspended=bool(item["spec"].get("suspend")),
        leaving="deletionTimestamp" in metadata,
        applications=tuple(
            Application(name, row.get("status", ""), row.get("message", ""))
            for name, row in sorted((active.get("applicationStatuses") or {}).items())
        ),
    )


def has_ended(job: Object) -> bool:
    """Whether a RayJob will not change any more."""
    return (job.get("status") or {}).get("jobDeploymentStatus") in _ENDED


def ray_jobs(items: Iterable[Object], batch_jobs: Sequence[Object]) -> tuple[RayJob, ...]:
    """RayJobs that have not ended, with how often their submitters failed."""
    failures: dict[str, int] = {}
    for job in batch_jobs:
        for owner in job["metadata"].get("ownerReferences") or []:
            if owner["kind"] == "RayJob":
                failures[owner["name"]] = int((job.get("status") or {}).get("failed") or 0)
    found = []
    for item in items:
        status = item.get("status") or {}
        found.append(
            RayJob(
                name=item["metadata"]["name"],
                status=status.get("jobDeploymentStatus") or "",
                since=moment(status.get("startTime") or item["metadata"]["creationTimestamp"]),
                cluster=status.get("rayClusterName") or "",
                message=" ".join((status.get("message") or "").split())[:200],
                submitter_failures=failures.get(item["metadata"]["name"], 0),
            )
        )
    return tuple(found)


def node(item: Object) -> Node:
    """A node; conditions about GPUs are those of node-problem-detector and of EKS' node monitoring agent."""
    ready = _condition(item, "Ready")
    pressure = [
        kind.removesuffix("Pressure")
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
        if _condition(item, kind).get("status") == "True"
    ]
    taints = [taint["key"] for taint in item["spec"].get("taints") or []]
    faults = [
        " ".join(f"{condition.get('reason', '')}: {condition.get('message', '')}".split())
        for condition in (item.get("status") or {}).get("conditions") or []
        if _GPU.search(condition["type"])
        and condition["status"] == ("False" if condition["type"].endswith("Ready") else "True")
    ]
    return Node(
        name=item["metadata"]["name"],
        ready=ready.get("status") == "True",
        problem=" ".join((ready.get("message") or ready.get("reason") or "").split()),
        pressure=tuple(pressure),
        interrupted=next((_INTERRUPTIONS[key] for key in taints if key in _INTERRUPTIONS), ""),
        gpu_fault="; ".join(faults)[:300],
    )


def operator(item: Object) -> Probe:
    """KubeRay's Deployment."""
    name = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
    available = int((item.get("status") or {}).get("availableReplicas") or 0)
    if item["spec"].get("replicas", 1) == 0:
        return Probe(name, "it is scaled to 0 replicas")
    return Probe(name, "" if available else "none of its replicas is available")


def applications(answer: Any) -> tuple[Application, ...]:
    """Serve applications, as Ray's dashboard tells them."""
    return tuple(
        Application(
            name,
            row["status"],
            " ".join(row["message"].split())[:300],
            datetime.fromtimestamp(row["last_deployed_time_s"]).astimezone(),
        )
        for name, row in sorted(answer.get("applications", {}).items())
    )


def _changed(item: Object, condition: str) -> datetime:
    """When a condition last changed; without it, when the object was made."""
    return moment(_condition(item, condition).get("lastTransitionTime") or item["metadata"]["creationTimestamp"])


def _condition(item: Object, kind: str) -> Object:
    conditions: list[Object] = (item.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _reason(container: Object) -> str:
    return str(((container.get("state") or {}).get("waiting") or {}).get("reason", ""))
