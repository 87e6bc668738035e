"""Which repairs a finding has, smallest first, and what forbids one. Pure: from what was observed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ops.health.checks.clusters import active, scope
from ops.health.finding import Finding, Id
from ops.health.observed import Observed, Pod, RayCluster
from ops.health.settings import HealthSettings


class Step(StrEnum):
    """A repair, from the smallest to the largest."""

    RESTART_APPLICATION = "restart application"
    DELETE_POD = "delete pod"
    RECREATE = "recreate"
    """Delete a cluster and let its owner make it again, or bring it back from the newest backup."""


_ALL = (Step.RESTART_APPLICATION, Step.DELETE_POD, Step.RECREATE)

LADDERS: Mapping[Id, tuple[Step, ...]] = {
    Id.CLUSTER_MISSING: (Step.RECREATE,),
    Id.SERVICE_MISSING: (Step.RECREATE,),
    Id.HEAD_DOWN: (Step.DELETE_POD, Step.RECREATE),
    Id.DASHBOARD_DOWN: (Step.DELETE_POD, Step.RECREATE),
    Id.GCS_DOWN: (Step.DELETE_POD, Step.RECREATE),
    Id.AUTOSCALER_DOWN: (Step.DELETE_POD,),
    Id.APPLICATION_UNHEALTHY: _ALL,
    Id.SERVE_DOWN: (Step.DELETE_POD, Step.RECREATE),
    Id.WORKER_DOWN: (Step.DELETE_POD,),
    Id.CLUSTER_NOT_READY: (Step.RECREATE,),
    Id.GATEWAY_POD_DOWN: (Step.DELETE_POD,),
}
"""What is not here is told and left to a person, or to what repairs it anyway (node groups, the scheduler)."""


@dataclass(frozen=True)
class Repair:
    """One step on one object."""

    step: Step
    kind: str
    name: str
    uid: str = ""
    """Of the object that was seen: another one by that name is left alone."""
    application: str = ""
    restores: bool = False
    """Whether it ends with the object brought back from the newest backup, and not by its owner."""
    forbidden: str = ""
    """Why it must not be done now."""

    def __str__(self) -> str:
        if self.step is Step.DELETE_POD:
            return f"{self.step} {self.name}"
        of = f" {self.application} of" if self.application else ""
        return f"{self.step}{of} {self.kind} {self.name}"


def repairs(finding: Finding, observed: Observed, settings: HealthSettings) -> tuple[Repair, ...]:
    """What could be done about a finding, smallest first. A step that has no object now is left out."""
    makers = {Step.RESTART_APPLICATION: _restarts, Step.DELETE_POD: _deletes, Step.RECREATE: _recreates}
    steps = LADDERS.get(finding.id, ())
    return tuple(repair for step in steps for repair in makers[step](finding, observed, settings))


def _restarts(finding: Finding, observed: Observed, settings: HealthSettings) -> Iterator[Repair]:
    kind, _, rest = finding.target.partition("/")
    name, _, application = rest.partition("/")
    if kind == "RayService":
        yield Repair(Step.RESTART_APPLICATION, kind, name, application=application)


def _deletes(finding: Finding, observed: Observed, settings: HealthSettings) -> Iterator[Repair]:
    """The pod that the finding names; else a worker that is not ready for Serve, else the head of its cluster."""
    for pod in observed.pods:
        if finding.target == f"Pod/{pod.name}" and not pod.leaving:
            if pod.phase != "Pending":  # what cannot start would not start again either
                yield _delete(pod, observed)
            return
    row = _cluster(finding, observed)
    if row is None:
        return
    idle = [pod for pod in observed.pods_of(row.name, "worker") if not pod.ready and pod.phase == "Running"]
    if finding.id is Id.SERVE_DOWN and idle:
        yield _delete(idle[0], observed)
        return
    for pod in observed.pods_of(row.name, "head"):
        yield _delete(pod, observed)


def _delete(pod: Pod, observed: Observed) -> Repair:
    row = observed.cluster(pod.cluster)
    forbidden = ""
    if row is not None:
        forbidden = nobody_makes_it(observed) or cannot_go([pod], observed)
        if pod.role == "head" or pod.phase == "Running":
            forbidden = forbidden or work_lost(row, observed)
    return Repair(Step.DELETE_POD, "Pod", pod.name, pod.uid, forbidden=forbidden)


def _recreates(finding: Finding, observed: Observed, settings: HealthSettings) -> Iterator[Repair]:
    kind, _, name = finding.target.partition("/")
    if finding.id in (Id.CLUSTER_MISSING, Id.SERVICE_MISSING):
        forbidden = nobody_makes_it(observed) or no_backup(observed, settings)
        yield Repair(Step.RECREATE, kind, name, restores=True, forbidden=forbidden)
        return
    row = _cluster(finding, observed)
    if row is not None:
        owned = bool(row.owner)
        pods = [pod for pod in observed.pods if pod.cluster == row.name]
        forbidden = nobody_makes_it(observed) or cannot_go(pods, observed) or work_lost(row, observed)
        forbidden = forbidden or ("" if owned else no_backup(observed, settings))
        yield Repair(Step.RECREATE, "RayCluster", row.name, row.uid, restores=not owned, forbidden=forbidden)


def nobody_makes_it(observed: Observed) -> str:
    """Whether the operator would make again what is deleted."""
    if observed.operator is None:
        return "the operator cannot be seen, and nobody else makes it again"
    return "the operator is down, and nobody else makes it again" if observed.operator.problem else ""


def cannot_go(pods: Iterable[Pod], observed: Observed) -> str:
    """Whether a pod is on a node that does not report: told to go, it stays until the node is back or gone, and KubeRay
    makes no other before that. Nor need anything be wrong with it: after an outage of the API server no node has
    reported for a while."""
    silent = {node.name for node in observed.nodes if not node.ready}
    where = next((pod.node for pod in pods if pod.node in silent), "")
    return f"node {where} does not report; its pods cannot go before it is back or gone" if where else ""


def work_lost(row: RayCluster, observed: Observed) -> str:
    """Whether runs on a cluster would be lost with its head's state."""
    if row.fault_tolerant:
        return ""
    if "RayJobs" in observed.unseen:
        return "it cannot be seen whether runs use it, and its head's state is kept nowhere else"
    jobs = [job.name for job in observed.jobs if job.cluster == row.name]
    dashboard = observed.dashboards.get(row.name)
    if jobs or (dashboard and dashboard.running_jobs):
        which = f"run {jobs[0]}" if jobs else f"{dashboard.running_jobs if dashboard else 0} runs"
        return f"{which} would be lost: the state of its head is kept nowhere else (no GCS fault tolerance)"
    return ""


def no_backup(observed: Observed, settings: HealthSettings) -> str:
    """Whether the newest backup could be relied on. All of it is verified before anything is deleted."""
    backup = observed.backup
    if backup is None:
        return "the backups cannot be seen"
    if backup.damage:
        return f"a backup is damaged ({backup.damage})"
    if backup.finished is None:
        return "there is no Completed backup"
    age_s = (observed.at - backup.finished).total_seconds()
    return f"the newest backup, {backup.id}, is stale" if age_s > settings.backup_age_s else ""


def _cluster(finding: Finding, observed: Observed) -> RayCluster | None:
    """The cluster that a finding is about: a service's is the one that serves."""
    rows = [row for row in active(observed) if scope(row) == finding.scope]
    serving = {service.cluster for service in observed.services}
    return next((row for row in rows if row.name in serving), rows[0] if rows else None)
