"""Waiting until what was restored is up, by what the operator itself reports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from jobs.errors import RemoteError
from ops.kube import Cluster, Object
from ops.restore.plan import Step


def is_up(kind: str, item: Object) -> bool:
    """Whether the operator calls it up. Conditions came with KubeRay 1.3; the older words stand beside them."""
    status = item.get("status") or {}
    true = {condition["type"] for condition in status.get("conditions") or [] if condition.get("status") == "True"}
    if kind == "RayService":
        return "Ready" in true or status.get("serviceStatus") == "Running"
    return "RayClusterProvisioned" in true or status.get("state") == "ready"


def wait_until_up(
    cluster: Cluster,
    namespace: str,
    steps: Iterable[Step],
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Watch until every restored RayCluster and RayService that does not sleep is up.

    Raises RemoteError naming what is not after `timeout_s`.
    """
    deadline_s = clock() + timeout_s
    for kind in ("RayCluster", "RayService"):
        mine = [step for step in steps if step.kind.name == kind]
        waiting = {step.name for step in mine if not json.loads(step.body)["spec"].get("suspend")}
        while waiting:
            left_s = deadline_s - clock()
            if left_s <= 0:
                names = ", ".join(sorted(waiting))
                raise RemoteError(
                    f"{kind} {names}: restored, but not up after {timeout_s:g} s; see kubectl describe, then run the "
                    "restore again: it goes on waiting"
                )
            for item in cluster.watch(mine[0].kind.group, kind, left_s, namespace):
                if is_up(kind, item):
                    waiting.discard(item["metadata"]["name"])
                if not waiting:
                    break
