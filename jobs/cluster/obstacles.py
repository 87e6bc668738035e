"""What keeps pods from running: looked for in pods first, which are as they are, then in events, which are the past.

Reasons are those of the kubelet, the scheduler, the node autoscaler, the API server's admission and KubeRay 1.7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.cluster.diagnosis import Object, Observed

GPU = "nvidia.com/gpu"

_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
_NO_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_QUOTA = re.compile(r"exceeded quota: (\S+?), requested: (.+?), used: (.+?), limited: (.+?)(?:$|\s*\n)")
_POD_SECURITY = re.compile(r'violates PodSecurity "([^"]+)": (.+)')
_WEBHOOK = re.compile(r'admission webhook "([^"]+)" denied the request:? ?(.*)')
_NO_ACCOUNT = re.compile(r'serviceaccount "([^"]+)" not found')
_NO_WEBHOOK = re.compile(r'failed calling webhook "([^"]+)": (.+)')
_INSUFFICIENT = re.compile(r"Insufficient ([\w./-]*\w)")
_SIZE = 200
"""Most characters of somebody else's message in a sentence of ours."""


@dataclass(frozen=True)
class Obstacle:
    """Why pods do not run."""

    kind: str
    """operator, queue, gpu, room, image, quota, refused, missing, crash"""
    sentence: str
    hopeless: bool = False
    """Whether waiting alone cannot help."""


def find(observed: Observed) -> Obstacle | None:
    """The obstacle to name, of several the one that explains most; None if everything is under way."""
    for look in (_image, _missing, _crash, _unschedulable, _refused):
        obstacle = next(look(observed), None)
        if obstacle:
            return obstacle
    return None


def refusal(message: str) -> Obstacle | None:
    """The obstacle that an API server's answer to a creation is, whoever asked for it."""
    text = " ".join(message.split())
    if found := _QUOTA.search(text):
        name, requested, used, limited = found.groups()
        sentence = f"the quota {name} is used up: {requested} is asked for, {used} of {limited} is taken"
        return Obstacle("quota", sentence)
    if found := _POD_SECURITY.search(text):
        level, details = found.groups()
        return Obstacle("refused", f'Pod Security "{level}" refuses its pods: {details[:_SIZE]}', hopeless=True)
    if found := _WEBHOOK.search(text):
        name, details = found.groups()
        return Obstacle("refused", f"the admission webhook {name} refuses it: {details[:_SIZE]}", hopeless=True)
    if found := _NO_WEBHOOK.search(text):
        name, details = found.groups()
        return Obstacle("refused", f"the admission webhook {name} does not answer: {details[:_SIZE]}")
    if found := _NO_ACCOUNT.search(text):
        sentence = f"its service account {found.group(1)} is not there; the platform's chart makes it: make apply"
        return Obstacle("missing", sentence, hopeless=True)
    if "forbidden" in text.lower():
        return Obstacle("refused", f"the API server refuses its pods: {text[:_SIZE]}", hopeless=True)
    return None


def _image(observed: Observed) -> Iterator[Obstacle]:
    for pod, container, waiting in _waiting(observed.pods, _NO_IMAGE):
        said = waiting.get("message") or ""
        image, where = container["image"], pod["metadata"]["name"]
        gone = "not found" in said or "manifest unknown" in said
        if waiting["reason"] == "InvalidImageName":
            why, hopeless = "is no valid name; correct registry and tag in the profile", True
        elif waiting["reason"] == "ErrImageNeverPull":
            why, hopeless = "is not on the node, which may not pull it; load it first (kind load docker-image)", True
        elif gone:
            why, hopeless = "is not in the registry; build and push it (make images), or correct its tag", True
        elif re.search(r"unauthorized|denied|no basic auth|403|401", said, re.IGNORECASE):
            why, hopeless = "may not be pulled by the nodes; give them access or a pull secret", False
        else:
            why, hopeless = f"cannot be pulled: {' '.join(said.split())[:_SIZE] or waiting['reason']}", False
        yield Obstacle("image", f"the image {image} of {where} {why}", hopeless)


def _missing(observed: Observed) -> Iterator[Obstacle]:
    for pod, _, waiting in _waiting(observed.pods, _NO_CONFIG):
        said = " ".join((waiting.get("message") or waiting["reason"]).split())
        yield Obstacle("missing", f"{pod['metadata']['name']} cannot start: {said[:_SIZE]}")
    pending = {pod["metadata"]["name"] for pod in observed.pods if _phase(pod) == "Pending"}
    for event in reversed(observed.events):
        if event.get("reason") == "FailedMount" and event["involvedObject"].get("name") in pending:
            said = " ".join(event["message"].split())
            yield Obstacle("missing", f"{event['involvedObject']['name']} cannot start: {said[:_SIZE]}")


def _crash(observed: Observed) -> Iterator[Obstacle]:
    for pod in observed.pods:
        name = pod["metadata"]["name"]
        for state in _container_states(pod):
            ended = (state.get("lastState") or {}).get("terminated") or (state.get("state") or {}).get("terminated")
            looping = ((state.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff"
            if ended and ended.get("reason") == "OOMKilled":
                yield Obstacle(
                    "crash", f"{name} ran out of memory (OOMKilled); give its pods more, or the job less to do"
                )
            elif looping and ended:
                yield Obstacle("crash", f"{name} keeps ending with exit code {ended['exitCode']}; see make logs")
        if _phase(pod) == "Failed" and (
            pod["status"].get("reason") in ("Evicted", "Preempted", "NodeLost", "Shutdown")
        ):
            said = " ".join((pod["status"].get("message") or "").split())
            yield Obstacle("crash", f"{name} lost its node ({pod['status']['reason']}): {said[:_SIZE]}")


def _unschedulable(observed: Observed) -> Iterator[Obstacle]:
    for pod in observed.pods:
        scheduled = _condition(pod, "PodScheduled")
        if _phase(pod) != "Pending" or not scheduled or scheduled["status"] != "False":
            continue
        name, said = pod["metadata"]["name"], " ".join((scheduled.get("message") or "").split())
        if scheduled.get("reason") == "SchedulingGated":
            yield Obstacle("queue", f"{name} is held back by a scheduling gate; its queue has not admitted it yet")
            continue
        lacking = sorted(set(_INSUFFICIENT.findall(said)))
        gpus = _requested(pod, GPU)
        if gpus and (GPU in lacking or not lacking):
            kind, what = "gpu", f"no node has {gpus} free GPU{'s' if gpus > 1 else ''} for {name}"
        elif lacking:
            kind, what = "room", f"no node has enough {' and '.join(lacking)} for {name}"
        else:
            kind, what = "room", f"no node takes {name} ({said[:_SIZE]})"
        scaling, hopeless = _node_autoscaler(observed.events, name)
        yield Obstacle(kind, what + scaling, hopeless)


def _node_autoscaler(events: Iterable[Object], pod: str) -> tuple[str, bool]:
    """What the node autoscaler said last about a pod, and whether that is its last word."""
    for event in sorted(events, key=_time, reverse=True):
        if event["involvedObject"].get("name") != pod:
            continue
        match event.get("reason"):
            case "TriggeredScaleUp":
                return "; a node for it is being started", False
            case "FailedScaleUp":
                return "; the cloud has none to give just now, it is asked again", False
            case "NotTriggerScaleUp":
                said = " ".join(event["message"].split()).removeprefix("pod didn't trigger scale-up: ")
                return f", and no node group can grow for it ({said[:_SIZE]})", False
    return "", False


def _refused(observed: Observed) -> Iterator[Obstacle]:
    """Pods that were never made. An event that is older than the newest pod speaks of what has passed."""
    newest_pod = max((pod["metadata"].get("creationTimestamp") or "" for pod in observed.pods), default="")
    for cluster in observed.clusters:
        failure = _condition(cluster, "ReplicaFailure")
        if failure and failure["status"] == "True":
            yield from filter(None, [refusal(failure.get("message") or "")])
    for event in sorted(observed.events, key=_time, reverse=True):
        if event.get("type") == "Warning" and _time(event) >= newest_pod:
            yield from filter(None, [refusal(event.get("message") or "")])


def _waiting(pods: Iterable[Object], reasons: set[str]) -> Iterator[tuple[Object, Object, Object]]:
    """Pod, container of its spec and waiting state, of each container that waits for one of `reasons`."""
    for pod in pods:
        containers = {c["name"]: c for key in ("initContainers", "containers") for c in pod["spec"].get(key) or ()}
        for state in _container_states(pod):
            waiting = (state.get("state") or {}).get("waiting")
            if waiting and waiting.get("reason") in reasons:
                yield pod, containers[state["name"]], waiting


def _container_states(pod: Object) -> Iterator[Object]:
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(key) or ()


def _condition(thing: Object, kind: str) -> Object | None:
    conditions: Iterable[Any] = (thing.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), None)


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _requested(pod: Object, resource: str) -> int:
    limits = ((c.get("resources") or {}).get("limits") or {} for c in pod["spec"]["containers"])
    return sum(int(limit.get(resource, 0)) for limit in limits)


def _time(event: Object) -> str:
    """RFC 3339, which sorts as text to the second."""
    series: Callable[[str], Any] = (event.get("series") or {}).get
    stamp = event.get("lastTimestamp") or series("lastObservedTime") or event.get("eventTime") or ""
    return str(stamp)
