"""The operator, Ray clusters, their heads and workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Observed, Pod, RayCluster
from ops.health.settings import HealthSettings


def operator(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """KubeRay: without it running clusters go on, and nothing is made or repaired."""
    if observed.operator and observed.operator.problem:
        target = f"Deployment/{observed.operator.address}"
        yield Finding(Id.OPERATOR_DOWN, target, Severity.CRITICAL, f"KubeRay's operator: {observed.operator.problem}")


def clusters(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Clusters that must be there, and those that do not come up."""
    if "RayClusters" not in observed.unseen:
        for name in _wanted("RayCluster", settings.clusters, observed):
            row = observed.cluster(name)
            if row is None or (row.leaving and f"RayCluster/{name}" in observed.unfinished):
                yield Finding(Id.CLUSTER_MISSING, f"RayCluster/{name}", Severity.CRITICAL, f"RayCluster {name} is gone")
    for row in active(observed):
        age_s = (observed.at - row.since).total_seconds()
        if not row.up and age_s > settings.start_s and head_problem(observed, row, settings) is None:
            sentence = f"RayCluster {row.name} has not come up for {minutes(age_s)}{_obstacle(observed, row)}"
            yield Finding(Id.CLUSTER_NOT_READY, f"RayCluster/{row.name}", Severity.CRITICAL, sentence, scope(row))


def heads(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """A cluster depends on its head: its pod, the GCS, the dashboard and the autoscaler in it."""
    for row in active(observed):
        problem = head_problem(observed, row, settings)
        if problem:
            target, sentence = problem
            yield Finding(Id.HEAD_DOWN, target, Severity.CRITICAL, sentence, scope(row))
            continue
        dashboard = observed.dashboards.get(row.name)
        where = f"RayCluster/{row.name}"
        ready = any(pod.ready for pod in observed.pods_of(row.name, "head"))
        if dashboard and dashboard.gcs:
            sentence = f"the GCS of {row.name} does not answer its dashboard ({dashboard.gcs})"
            yield Finding(Id.GCS_DOWN, where, Severity.CRITICAL, sentence, scope(row))
        elif dashboard and dashboard.probe.status in (401, 403):
            sentence = f"the dashboard of {row.name} refuses our token (RAY_AUTH_TOKEN): {dashboard.probe.problem}"
            yield Finding(Id.SOURCE_UNSEEN, f"dashboard of {row.name}", Severity.WARNING, sentence)
        elif dashboard and dashboard.probe.problem and (ready or "pods" in observed.unseen):
            sentence = f"the dashboard of {row.name} is down: {dashboard.probe.problem}"
            yield Finding(Id.DASHBOARD_DOWN, where, Severity.CRITICAL, sentence, scope(row))
        for pod in observed.pods_of(row.name, "head"):
            if row.autoscaling and pod.phase == "Running" and "autoscaler" in pod.waiting:
                sentence = f"the autoscaler in {pod.name} does not run: no worker is added or taken away"
                yield Finding(Id.AUTOSCALER_DOWN, f"Pod/{pod.name}", Severity.WARNING, sentence, scope(row))


def workers(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Workers that do not run, and workers that nobody made."""
    for row in active(observed):
        pods = observed.pods_of(row.name, "worker")
        for pod in pods:
            problem = pod_problem(pod, observed.at, settings.start_s)
            if problem:
                yield Finding(Id.WORKER_DOWN, f"Pod/{pod.name}", Severity.WARNING, f"worker {problem}", scope(row))
        if row.up and len(pods) < row.wanted_workers and "pods" not in observed.unseen:
            sentence = f"{row.name} has {len(pods)} of {row.wanted_workers} worker pods; nobody makes the others"
            yield Finding(Id.WORKERS_MISSING, f"RayCluster/{row.name}", Severity.WARNING, sentence, scope(row))


def active(observed: Observed) -> Iterator[RayCluster]:
    """Clusters that should run."""
    return (row for row in observed.clusters if not (row.suspended or row.leaving))


def scope(row: RayCluster) -> str:
    """What a repair of a cluster disturbs: the RayService or RayJob that made it outlives its name."""
    return row.owner or f"RayCluster/{row.name}"


def head_problem(observed: Observed, row: RayCluster, settings: HealthSettings) -> tuple[str, str] | None:
    """Target and sentence if the head's pod is down."""
    pods = observed.pods_of(row.name, "head")
    for pod in pods:
        problem = pod_problem(pod, observed.at, settings.start_s)
        if problem:
            return f"Pod/{pod.name}", f"head {problem}"
    replaced = any((pod.cluster, pod.role) == (row.name, "head") for pod in observed.pods)
    if row.up and not replaced and "pods" not in observed.unseen:
        return f"RayCluster/{row.name}", f"{row.name} has no head pod, and nobody makes one"
    return None


def pod_problem(pod: Pod, at: datetime, start_s: float) -> str:
    """A sentence if a pod is down; empty if it is ready, on its way, or being deleted."""
    if pod.leaving or pod.ready:
        return ""
    why = f": {pod.obstacle}" if pod.obstacle else ""
    age_s = (at - pod.since).total_seconds()
    if pod.phase in ("Failed", "Succeeded"):
        return f"{pod.name} has ended{why}"
    if pod.looping:
        return f"{pod.name} keeps ending{why}"
    if pod.was_ready:
        return f"{pod.name} was ready and is not any more{why}"
    if age_s > start_s:
        return f"{pod.name} has not become ready for {minutes(age_s)}{why}"
    return ""


def minutes(seconds: float) -> str:
    """A time for a sentence."""
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def _wanted(kind: str, expected: tuple[str, ...], observed: Observed) -> list[str]:
    begun = (target.removeprefix(f"{kind}/") for target in observed.unfinished if target.startswith(f"{kind}/"))
    return sorted({*expected, *begun})


def missing_services(observed: Observed, settings: HealthSettings) -> Iterator[str]:
    """RayServices that must be there and are not."""
    there = {
        row.name for row in observed.services if not row.leaving or f"RayService/{row.name}" not in observed.unfinished
    }
    return (name for name in _wanted("RayService", settings.services, observed) if name not in there)


def _obstacle(observed: Observed, row: RayCluster) -> str:
    obstacles = (pod.obstacle for pod in observed.pods if pod.cluster == row.name and pod.obstacle)
    return next((f": {obstacle}" for obstacle in obstacles), "")
