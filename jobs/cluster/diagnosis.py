"""What a run on a cluster does, and why it does not: a pure function from the objects in the API to one sentence.

States and reasons are those of KubeRay 1.7 (`rayjob_types.go`); obstacles are looked for in `jobs.cluster.obstacles`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobs.cluster.obstacles import Obstacle, find

Object = dict[str, Any]
"""A Kubernetes object as the API gives it in JSON."""

_EXIT_CODE = re.compile(r"exit code (\d+)")
_ENVIRONMENT_NOT_READY, _REMOTE_FAILURE, _INTERRUPTED = 3, 4, 130


class Phase(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    GONE = "gone"


@dataclass(frozen=True)
class Operator:
    """A Deployment of the KubeRay operator."""

    name: str
    wanted: int
    available: int


@dataclass(frozen=True)
class Observed:
    """What the API has about one run."""

    job: Object | None
    """The RayJob."""
    clusters: tuple[Object, ...] = ()
    """RayClusters that belong to it; after a retry there can be more than one."""
    pods: tuple[Object, ...] = ()
    """Pods of the clusters and of the submitter."""
    events: tuple[Object, ...] = ()
    """Events (core/v1) about any of these."""
    operators: tuple[Operator, ...] | None = None
    """The operator's Deployments; None if this user may not see them."""


@dataclass(frozen=True)
class Finding:
    """The state of a run in one sentence."""

    phase: Phase
    sentence: str
    obstacle: Obstacle | None = None
    exit_code: int | None = None
    """Of a run that has ended: what a command that waited for it returns."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase not in (Phase.WAITING, Phase.RUNNING)


def diagnose(observed: Observed, age_s: float, operator_deadline_s: float) -> Finding:
    """What `observed` means, `age_s` seconds after the RayJob was made.

    A working operator has given it a status within `operator_deadline_s`.
    """
    if observed.job is None:
        sentence = "its RayJob is gone: stopped, deleted by hand, or past its time to live"
        return Finding(Phase.GONE, sentence, exit_code=_REMOTE_FAILURE)
    status = observed.job.get("status") or {}
    observed = _current(observed)
    match status.get("jobDeploymentStatus") or "":
        case "Complete" | "Failed" | "ValidationFailed" as deployment:
            return _ended(deployment, status, observed)
        case "":
            return _unanswered(observed, age_s, operator_deadline_s)
        case "Suspending" | "Suspended":
            return _held_back(observed)
        case "Retrying":
            sentence = f"attempt {status.get('failed') or 1} failed; a new Ray cluster goes on from the last checkpoint"
            return Finding(Phase.WAITING, sentence)
        case "Running":
            obstacle = find(observed)
            sentence = f"runs, but not all of its workers do: {obstacle.sentence}" if obstacle else "runs"
            return Finding(Phase.RUNNING, sentence, obstacle)
        case _:  # Initializing, Waiting
            obstacle = find(observed)
            return Finding(Phase.WAITING, obstacle.sentence if obstacle else _progress(observed.pods), obstacle)


def _ended(deployment: str, status: Object, observed: Observed) -> Finding:
    job_status, reason = status.get("jobStatus") or "", status.get("reason") or ""
    message = _last_line(status.get("message") or "")
    if deployment == "Complete" and job_status == "SUCCEEDED":
        return Finding(Phase.FINISHED, "finished", exit_code=0)
    if job_status == "STOPPED":
        return Finding(Phase.STOPPED, "was stopped", exit_code=_INTERRUPTED)
    exit_code = _EXIT_CODE.search(status.get("message") or "")
    match "ValidationFailed" if deployment == "ValidationFailed" else reason:
        case "ValidationFailed":
            sentence, code = f"KubeRay refuses the RayJob: {message}", _ENVIRONMENT_NOT_READY
        case "SubmissionFailed":
            sentence, code = f"it could not be submitted to its Ray cluster: {message}", _ENVIRONMENT_NOT_READY
        case "PreRunningDeadlineExceeded":
            obstacle = find(observed)
            cause = obstacle.sentence if obstacle else _progress(observed.pods)
            return Finding(
                Phase.FAILED, f"it did not start within its deadline: {cause}", obstacle, _ENVIRONMENT_NOT_READY
            )
        case "DeadlineExceeded":
            sentence, code = "it took longer than its deadline (deadlines.runSeconds) allows", _REMOTE_FAILURE
        case "JobStatusCheckTimeoutExceeded":
            sentence, code = f"its Ray head stopped answering: {message}", _REMOTE_FAILURE
        case "JobDeploymentStatusTransitionGracePeriodExceeded":
            sentence, code = f"its submitter ended without an end of the job: {message}", _REMOTE_FAILURE
        case _ if exit_code:
            sentence, code = f"the job ended with exit code {exit_code.group(1)}", int(exit_code.group(1))
        case _:
            sentence, code = f"the job failed: {message or reason or 'no reason was given'}", _REMOTE_FAILURE
    return Finding(Phase.FAILED, sentence, exit_code=code)


def _unanswered(observed: Observed, age_s: float, deadline_s: float) -> Finding:
    """No status yet: the operator is slow, away, or looks elsewhere."""
    if age_s < deadline_s:
        return Finding(Phase.WAITING, "waits for the KubeRay operator")
    operators, since = observed.operators, f"the RayJob has had no answer within {deadline_s:g} s"
    available = [operator for operator in operators or () if operator.available]
    if operators is None:
        sentence = f"{since}, and you may not see whether the KubeRay operator is up; ask who runs the cluster"
    elif not operators:
        sentence = f"{since}: no KubeRay operator is installed on this cluster; `make apply` installs it"
    elif not available:
        down = operators[0]
        namespace, _, name = down.name.partition("/")
        sentence = (
            f"{since}: the KubeRay operator is down ({down.name}: {down.available} of {down.wanted} available); "
            f"see kubectl -n {namespace} describe deployment {name}"
        )
    else:
        sentence = (
            f"{since}, though the KubeRay operator ({available[0].name}) is available; does it watch this namespace? "
            f"See its log"
        )
    return Finding(Phase.WAITING, sentence, Obstacle("operator", sentence, hopeless=True))


def _held_back(observed: Observed) -> Finding:
    assert observed.job is not None
    metadata = observed.job["metadata"]
    queue = (metadata.get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    if not queue:
        return Finding(Phase.STOPPED, "is suspended; make resume lets it go on", exit_code=_INTERRUPTED)
    said = [event for event in observed.events if event["involvedObject"]["kind"] == "Workload"]
    reason = f": {_last_line(said[-1]['message'])}" if said else ""
    sentence = f"waits in the Kueue queue {queue}{reason}"
    return Finding(Phase.WAITING, sentence, Obstacle("queue", sentence))


def _current(observed: Observed) -> Observed:
    """Without the pods and events of Ray clusters of earlier attempts."""
    status = (observed.job or {}).get("status") or {}
    name = status.get("rayClusterName")
    stale = {cluster["metadata"]["name"] for cluster in observed.clusters} - {name}
    if not name or not stale:
        return observed
    pods = tuple(p for p in observed.pods if (p["metadata"].get("labels") or {}).get("ray.io/cluster") not in stale)
    gone = stale | {pod["metadata"]["name"] for pod in observed.pods if pod not in pods}
    events = tuple(event for event in observed.events if event["involvedObject"].get("name") not in gone)
    clusters = tuple(cluster for cluster in observed.clusters if cluster["metadata"]["name"] == name)
    return Observed(observed.job, clusters, pods, events, observed.operators)


def _progress(pods: Iterable[Object]) -> str:
    ray = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get("ray.io/cluster")]
    ready = sum(_is_ready(pod) for pod in ray)
    return f"its Ray cluster starts: {ready} of {len(ray)} pods are ready" if ray else "its Ray cluster is being made"


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
