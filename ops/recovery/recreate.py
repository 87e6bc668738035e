"""The largest repair: an object deleted and brought back from the newest backup, by the restore's own steps.

The backup is verified, and must hold the object as it is, before anything is deleted. Run again, it goes on from where
it stopped.
"""

from __future__ import annotations

import time

from jobs.errors import EnvironmentNotReady, HaetsalError
from ops.backup.objects import Objects
from ops.backup.run import LEASE
from ops.backup.sealing import Sealing
from ops.kinds import RAY, Kind
from ops.kube import Changed, Cluster, Object
from ops.lease import held
from ops.recovery.history import UNFINISHED
from ops.restore.apply import apply, find_live, observe_target
from ops.restore.content import open_backup
from ops.restore.plan import Action, Plan, Policy, plan_object
from ops.settings import OpsSettings

_LOOK_S = 0.5


class Refused(HaetsalError):
    """The object cannot be made again as it is, so it is not deleted. Exit code 5."""

    exit_code = 5


def recreate(
    settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing, kind: str, name: str, uid: str
) -> str:
    """Delete the object of that uid (empty: none is there) and create it from the newest backup.

    Returns what was done. Raises Refused where the backup does not hold what is there, Changed where another object
    is there by that name, Busy while a backup or restore is at work.
    """
    namespace, which = settings.cluster.namespace, Kind(RAY, kind)
    content = open_backup(objects, sealing, "latest", settings.store.threads)
    saved = next((body for found, item, body in content.saved() if (found.name, item) == (kind, name)), None)
    if saved is None:
        raise Refused(f"{content.manifest.id} does not hold {kind} {name}; make a backup, or rebuild it by hand")
    target = observe_target(cluster, namespace, content.manifest.id)
    with held(cluster, namespace, LEASE, settings.cluster.lease_s) as lease:
        live = find_live(cluster, which, name, namespace)
        if live and not _is_going(live):
            if live["metadata"]["uid"] != uid:
                raise Changed(f"{kind} {name}: is another one than the one that was unhealthy")
            step = plan_object(which, name, saved, live, target, Policy.FAIL)
            if step.action is not Action.UNCHANGED:
                why = "; ".join(step.details[:3]) or step.reason
                raise Refused(f"{kind} {name}: {content.manifest.id} holds it otherwise ({why}); make a backup first")
            lease.check()
            # In the foreground: it is gone only when its pods are, which a new one by that name would take for its own.
            only_it = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
            cluster.delete(RAY, kind, name, namespace, only_it)
        if not _wait_gone(cluster, which, name, namespace, settings.recovery.gone_s):
            return f"{UNFINISHED}{kind} {name} is still being deleted; see its finalizers"
        step = plan_object(which, name, saved, None, target, Policy.FAIL)
        if step.action is not Action.CREATE:
            raise EnvironmentNotReady(f"{kind} {name}: is not restored: {step.reason}")
        apply(cluster, content, Plan([step]), target, Policy.FAIL, None)
    return f"brought back from {content.manifest.id}"


def _is_going(live: Object) -> bool:
    return "deletionTimestamp" in live["metadata"]


def _wait_gone(cluster: Cluster, kind: Kind, name: str, namespace: str, timeout_s: float) -> bool:
    """Whether the object is gone in time. It is asked for by name: a watch would need a right more."""
    ends_s = time.monotonic() + timeout_s
    while find_live(cluster, kind, name, namespace) is not None:
        if time.monotonic() >= ends_s:
            return False
        time.sleep(_LOOK_S)
    return True
