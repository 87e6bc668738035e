"""From an object as it was saved to one that may be created: a table of small, pure steps."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ops.kinds import RAY, Kind, is_owned
from ops.kube import Object
from ops.restore.fields import prune

RESTORED_FROM = "haetsal.io/restored-from"
"""Annotation with the id of the backup; `--resume` finds what it may wake up by it."""

_METADATA = ("name", "labels", "annotations")
"""All else in metadata is the old cluster's: uid, versions, owners, finalizers, times."""
_CONTROLLER_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "ray.io/hash-without-replicas-and-workers-to-delete",
    "ray.io/upgrade-strategy-recreate-hash",
    "ray.io/num-worker-groups",
    "ray.io/kuberay-version",
    "ray.io/cronjob-scheduled-timestamp",
)
_EXTERNAL_STORAGE = "ray.io/external-storage-namespace"
TERMINAL = ("Complete", "Failed", "ValidationFailed")
"""RayJob's jobDeploymentStatus values that never change again."""


@dataclass(frozen=True)
class Target:
    """Where objects go. `schemas` are the target's own, by kind: what they do not know, the cluster would drop."""

    namespace: str
    backup_id: str
    api_versions: dict[str, str]
    schemas: dict[str, dict[str, Any]]
    asleep: bool = False
    """Nothing may start (a drill)."""


@dataclass(frozen=True)
class Desired:
    """What to create, or why nothing is created."""

    body: Object | None
    reason: str = ""
    notes: tuple[str, ...] = ()


def desired(kind: Kind, saved: Object, target: Target) -> Desired:
    """What `saved` becomes in `target`."""
    if is_owned(saved):
        return Desired(None, "its owner makes it")
    if kind.name not in target.api_versions:
        return Desired(None, f"this cluster has no {kind.name}")
    state = (saved.get("status") or {}).get("jobDeploymentStatus")
    if kind.name == "RayJob" and state in TERMINAL:
        return Desired(None, f"it had ended ({state}); created again it would run again")
    body = _stripped(saved, target)
    notes: list[str] = []
    if kind.group == RAY:
        _fresh_external_storage(body, target.backup_id)
        if kind.name in ("RayJob", "RayCronJob") or target.asleep:
            refusal = _suspend(kind, body, notes)
            if refusal:
                return Desired(None, refusal)
        schema = target.schemas.get(kind.name, {})
        dropped = prune(body.get("spec"), schema.get("properties", {}).get("spec", {}), "spec")
        if "spec.suspend" in dropped:
            return Desired(None, "this cluster's KubeRay cannot suspend it, so it would start at once")
        notes += [f"{path} is unknown to this cluster and is left out" for path in dropped]
    return Desired(body, notes=tuple(notes))


def comparable(kind: Kind, live: Object) -> Object:
    """A live object with what `desired` strips stripped; how a RayJob sleeps is its own affair once it is there."""
    cleaned = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    cleaned["metadata"] = _metadata(live)
    cleaned["metadata"].get("annotations", {}).pop(RESTORED_FROM, None)
    if kind.name == "RayJob":
        cleaned["spec"] = {key: value for key, value in live.get("spec", {}).items() if key not in _WOKEN}
    return cleaned


_WOKEN = ("suspend", "shutdownAfterJobFinishes", "deletionStrategy", "ttlSecondsAfterFinished")
"""Fields of a RayJob that a restore sets so that it can sleep."""


def _stripped(saved: Object, target: Target) -> Object:
    body = {key: deepcopy(value) for key, value in saved.items() if key not in ("metadata", "status")}
    body["apiVersion"] = target.api_versions[saved["kind"]]
    body["metadata"] = _metadata(saved) | {"namespace": target.namespace}
    body["metadata"].setdefault("annotations", {})[RESTORED_FROM] = target.backup_id
    return body


def _metadata(item: Object) -> dict[str, Any]:
    metadata = {key: deepcopy(item["metadata"][key]) for key in _METADATA if item["metadata"].get(key)}
    annotations = metadata.get("annotations", {})
    for name in _CONTROLLER_ANNOTATIONS:
        annotations.pop(name, None)
    if not annotations:
        metadata.pop("annotations", None)
    return metadata


def _suspend(kind: Kind, body: Object, notes: list[str]) -> str:
    """Let the object sleep; returns why that is impossible. The rules are those of KubeRay's own validation."""
    spec = body["spec"]
    spec["suspend"] = True
    if kind.name == "RayJob":
        if spec.get("clusterSelector"):
            return "it runs on a chosen cluster, and such jobs cannot sleep; submit it again"
        strategy = spec.get("deletionStrategy") or {}
        if not spec.get("shutdownAfterJobFinishes"):
            if "onSuccess" in strategy or "onFailure" in strategy:
                return "it keeps its cluster by deletionStrategy, and such jobs cannot sleep; submit it again"
            spec["shutdownAfterJobFinishes"] = True
            notes.append("shutdownAfterJobFinishes is set, without which KubeRay lets no job sleep")
            if rules := strategy.get("deletionRules"):  # KubeRay refuses the two together
                del spec["deletionStrategy"]
                spec["ttlSecondsAfterFinished"] = _cluster_stays_s(rules)
                notes.append(f"deletionRules become ttlSecondsAfterFinished: {spec['ttlSecondsAfterFinished']}")
        notes.append("sleeps until it is resumed; it then goes on from its checkpoint")
    return ""


def _cluster_stays_s(rules: list[Object]) -> int:
    """Longest time that deletionRules leave the cluster after the end."""
    return max((int(r["condition"].get("ttlSeconds", 0)) for r in rules if r["policy"] == "DeleteCluster"), default=0)


def _fresh_external_storage(body: Object, backup_id: str) -> None:
    """Another place in Redis for the head's state: the old one would bring the old Serve configuration back.

    Source: kuberay issue 1286. Without a name of its own a cluster uses its uid, which is fresh anyway.
    """
    annotations = body["metadata"]["annotations"]
    if _EXTERNAL_STORAGE in annotations:
        annotations[_EXTERNAL_STORAGE] = f"{body['metadata']['name']}-{backup_id}"
    spec = body.get("spec", {})
    for cluster in (spec, spec.get("rayClusterConfig") or {}, spec.get("rayClusterSpec") or {}):
        options = cluster.get("gcsFaultToleranceOptions") or {}
        if options.get("externalStorageNamespace"):
            options["externalStorageNamespace"] = f"{body['metadata']['name']}-{backup_id}"
