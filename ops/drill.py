"""`make drill`: prove that the newest backup can be restored, in a namespace and a database kept for that.

Everything comes back asleep, is compared with the backup, and is removed again, also what an earlier drill left when it
was killed. Age of the backup and time of the drill become metrics.
"""

from __future__ import annotations

import itertools
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass

from jobs.cli import main, parser
from jobs.errors import IntegrityError, RemoteError, UsageError
from ops import status
from ops.backup.database import Database, open_database, rows_from
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing
from ops.cli import opened
from ops.kinds import KINDS, Kind
from ops.kube import Cluster
from ops.lease import held
from ops.restore.apply import apply, find_live, make_plan, observe_target, refuse_conflicts, written
from ops.restore.content import Content, open_backup
from ops.restore.desired import RESTORED_FROM, Target, comparable
from ops.restore.fields import differences
from ops.restore.plan import Plan, Policy
from ops.settings import OpsSettings

LEASE = "haetsal-drill"
_DATABASE = "haetsal_drill_"


@dataclass(frozen=True)
class Drilled:
    """What a drill found."""

    backup_id: str
    objects: int
    left_out: int
    rows: int
    age_s: float
    duration_s: float

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"drill of {self.backup_id} (age {self.age_s / 3600:.1f} h): {self.objects} objects and {self.rows} rows "
            f"restored and equal, {self.left_out} left out on purpose, in {self.duration_s:.1f} s"
        )


def drill(settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing) -> Drilled:
    """Restore the newest Completed backup into scratch places. Raises IntegrityError if what came back differs."""
    home, scratch = settings.cluster.namespace, settings.drill.namespace
    if home == scratch:
        raise UsageError(f"drill.namespace {scratch}: is the platform's own, which a drill would empty")
    with held(cluster, home, LEASE, settings.cluster.lease_s), status.outcome(cluster, home, "restore_drill"):
        source = open_database(settings.mlflow.database) if settings.mlflow.database else None
        _sweep(cluster, settings, source)
        begun_s = time.monotonic()
        content = open_backup(objects, sealing, "latest", settings.store.threads)
        with ExitStack() as cleanup:
            cleanup.callback(_sweep, cluster, settings, source)
            name = _DATABASE + content.manifest.id.rpartition("-")[2]
            database = cleanup.enter_context(source.scratch(name)) if source else None
            target = observe_target(cluster, scratch, content.manifest.id, asleep=True)
            plan = make_plan(cluster, content, target, Policy.FAIL, database, None)
            refuse_conflicts(plan)
            apply(cluster, content, plan, target, Policy.FAIL, database)
            compared = _compare(cluster, content, plan, target, database)
            duration_s = time.monotonic() - begun_s
        now = objects.now()
        age_s = (now - content.manifest.finished).total_seconds()
        left_out = len(plan.steps) - compared
        result = Drilled(content.manifest.id, compared, left_out, _rows(content), age_s, duration_s)
        values = {
            "restore_drill_last_success_timestamp_seconds": now.timestamp(),
            "restore_drill_duration_seconds": duration_s,
            "restore_drill_backup_age_seconds": age_s,
            "restore_drill_objects": float(compared),
        }
        status.publish(cluster, home, "drill", status.exposition(values))
    return result


def _compare(cluster: Cluster, content: Content, plan: Plan, target: Target, database: Database | None) -> int:
    """Read everything back; the database has compared its rows before it committed. Returns the number of objects."""
    count = 0
    for step in written(plan):
        live = find_live(cluster, step.kind, step.name, target.namespace)
        if live is None:
            raise IntegrityError(f"drill of {content.manifest.id}: {step.kind.name} {step.name} did not come back")
        found = differences(comparable(step.kind, json.loads(step.body)), comparable(step.kind, live))
        if found:
            raise IntegrityError(f"drill of {content.manifest.id}: {step.kind.name} {step.name} differs: {found[0]}")
        count += 1
    item = content.find("Database")
    if item and database and database.find().revision != item.detail["revision"]:
        raise IntegrityError(f"drill of {content.manifest.id}: the database came back with another schema")
    return count


def _rows(content: Content) -> int:
    item = content.find("Database")
    return sum(rows_from(item.detail["rows"]).values()) if item else 0


def _sweep(cluster: Cluster, settings: OpsSettings, source: Database | None) -> None:
    """Delete what drills restored, this one or a killed one, and wait until it is gone."""
    namespace, timeout_s = settings.drill.namespace, settings.drill.cleanup_timeout_s
    deadline_s = time.monotonic() + timeout_s
    for kind in reversed(KINDS):
        if cluster.served(kind.group, kind.name) is None:
            continue
        for name in _restored(cluster, kind, namespace):
            cluster.delete(kind.group, kind.name, name, namespace)
        while left := _restored(cluster, kind, namespace):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                held_by = "see its finalizers"
                raise RemoteError(f"{namespace}: {kind.name} {left[0]} is not gone after {timeout_s:g} s; {held_by}")
            # Begins with what is there; the first change after that is worth another look.
            known = len(_restored(cluster, kind, namespace))
            for _ in itertools.islice(cluster.watch(kind.group, kind.name, min(left_s, 5), namespace), known + 1):
                continue
    if source:
        source.drop_scratch(_DATABASE)


def _restored(cluster: Cluster, kind: Kind, namespace: str) -> list[str]:
    """Names of the objects in the scratch namespace that a drill made."""
    items = cluster.find_all(kind.group, kind.name, namespace)
    return [item["metadata"]["name"] for item in items if RESTORED_FROM in (item["metadata"].get("annotations") or {})]


def command() -> None:
    """Drill and print the result."""
    it = opened(parser(__doc__ or "").parse_args())
    print(drill(it.settings, it.cluster, it.objects, it.sealing).summary())


if __name__ == "__main__":
    main(command)
