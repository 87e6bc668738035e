"""Kinds of objects that are saved, in the order in which they are restored: what others mount comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RAY = "ray.io"
ORIGIN_LABEL = "ray.io/originated-from-crd"
"""KubeRay's mark on what it made for a RayJob or RayService."""


@dataclass(frozen=True)
class Kind:
    """A kind by its API group; `optional`: older or smaller clusters do not have it."""

    group: str
    name: str
    optional: bool = False


CONFIG_MAP = Kind("", "ConfigMap")
RAY_KINDS = (Kind(RAY, "RayCluster"), Kind(RAY, "RayService"), Kind(RAY, "RayJob"), Kind(RAY, "RayCronJob", True))
KINDS = (CONFIG_MAP, *RAY_KINDS)
STATUS_CONFIG_MAP = "haetsal-ops-status"
"""Where the last results of backup, drill and retention are published; no part of a backup."""

MEMORY_CONFIG_MAP = "haetsal-health"
"""What the health checker remembers of its repairs; restored, it would remember wrongly."""

_NOT_SAVED = ("kube-root-ca.crt", STATUS_CONFIG_MAP, MEMORY_CONFIG_MAP)


def is_saved(kind: Kind, item: dict[str, Any]) -> bool:
    """Whether an object is a person's or a chart's, and not made by the cluster itself."""
    return not (kind == CONFIG_MAP and (item["metadata"]["name"] in _NOT_SAVED or is_owned(item)))


def is_owned(item: dict[str, Any]) -> bool:
    """Whether a controller made the object and would make it again."""
    metadata = item["metadata"]
    owners = metadata.get("ownerReferences") or []
    return ORIGIN_LABEL in (metadata.get("labels") or {}) or any(owner.get("controller") for owner in owners)


def secret_names(value: Any) -> set[str]:
    """Names of the Secrets that a pod template anywhere below `value` uses. Values of Secrets are never read."""
    names: set[str] = set()
    if isinstance(value, dict):
        for key, inner in value.items():
            match key, inner:
                case ("secretRef" | "secretKeyRef" | "secret", {"name": str(name)}) | (
                    "secret",
                    {"secretName": str(name)},
                ):
                    names.add(name)
                case "imagePullSecrets", list():
                    names.update(str(entry["name"]) for entry in inner if "name" in entry)
            names |= secret_names(inner)
    elif isinstance(value, list):
        for inner in value:
            names |= secret_names(inner)
    return names
