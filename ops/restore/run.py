"""One restore, from the proof of the backup to the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from jobs.errors import HaetsalError
from jobs.storage import Storage
from ops.backup import sources
from ops.backup.database import open_database
from ops.backup.objects import Objects
from ops.backup.run import LEASE
from ops.backup.sealing import Sealing
from ops.kinds import RAY
from ops.kube import Cluster
from ops.lease import held
from ops.restore.apply import apply, make_plan, observe_target, refuse_conflicts, written
from ops.restore.content import Content, open_backup
from ops.restore.desired import RESTORED_FROM
from ops.restore.health import wait_until_up
from ops.restore.plan import Plan, Policy, render
from ops.settings import OpsSettings


@dataclass(frozen=True)
class Report:
    """What a restore did."""

    backup_id: str
    plan: Plan
    recovery_s: float | None
    """From the command to everything being up; none for a dry run."""
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The plan, what a person must know, and the time."""
        lines = [f"backup {self.backup_id}", render(self.plan), *self.notes]
        if self.recovery_s is not None:
            lines.append(f"recovered in {self.recovery_s:.1f} s")
        return "\n".join(lines)


def restore(
    settings: OpsSettings,
    cluster: Cluster,
    objects: Objects,
    sealing: Sealing,
    backup_id: str,
    policy: Policy,
    dry_run: bool = False,
) -> Report:
    """Restore into `cluster.namespace`. Nothing is written, not even the Lease, before every hash was compared."""
    begun_s = time.monotonic()
    namespace = settings.cluster.namespace
    content = open_backup(objects, sealing, backup_id, settings.store.threads)
    database = open_database(settings.mlflow.database) if settings.mlflow.database else None
    version = sources.mlflow_version(settings.mlflow.uri, settings.cluster.request_timeout_s) if database else None
    target = observe_target(cluster, namespace, content.manifest.id)
    notes = _notes(content, settings)
    plan = make_plan(cluster, content, target, policy, database, version)
    refuse_conflicts(plan)
    if dry_run:
        return Report(content.manifest.id, plan, None, notes)
    with held(cluster, namespace, LEASE, settings.cluster.lease_s):
        plan = make_plan(cluster, content, target, policy, database, version)
        refuse_conflicts(plan)
        apply(cluster, content, plan, target, policy, database)
        wait_until_up(cluster, namespace, list(written(plan)), settings.restore.health_timeout_s)
    return Report(content.manifest.id, plan, time.monotonic() - begun_s, notes)


def resume(settings: OpsSettings, cluster: Cluster, name: str) -> None:
    """Wake up a restored RayJob. Raises Missing for one that is not there."""
    job = cluster.get(RAY, "RayJob", name, settings.cluster.namespace)
    if RESTORED_FROM not in (job["metadata"].get("annotations") or {}):
        raise HaetsalError(f"RayJob {name}: was not restored; change its spec.suspend by hand if you mean to")
    patch: dict[str, Any] = {
        "apiVersion": job["apiVersion"],
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": settings.cluster.namespace},
        "spec": {"suspend": False},
    }
    cluster.merge(RAY, patch)


def _notes(content: Content, settings: OpsSettings) -> tuple[str, ...]:
    notes: list[str] = []
    secrets = content.value("SecretNames") or {}
    if secrets:
        notes.append(f"needs these Secrets, which no backup holds: {', '.join(secrets)}")
    notes += [f"PartiallyFailed: {problem}" for problem in content.manifest.problems]
    with sources.problem("model files could not be looked for", notes):
        notes += _dangling(content, settings)
    return tuple(notes)


def _dangling(content: Content, settings: OpsSettings) -> list[str]:
    """Model versions whose files are gone: the database and the artifacts are two stores."""
    registry, root = content.value("Registry"), settings.runs.root
    if not registry or not root:
        return []
    storage = Storage(root)
    found = []
    for version in registry["versions"]:
        source = str(version["source"] or "").removeprefix("file://")
        if source.startswith(f"{storage.root}/") and not storage.exists(source.removeprefix(f"{storage.root}/")):
            found.append(f"dangling: {version['name']} version {version['version']} has no files at {source}")
    return found
