"""One backup, from the Lease to the manifest."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from jobs.errors import HaetsalError
from ops import status
from ops.backup import catalog, sources
from ops.backup.catalog import FORMAT, Item, Manifest, Origin, State
from ops.backup.chunks import LARGEST_BYTES
from ops.backup.database import open_database
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing
from ops.backup.upload import Upload
from ops.kinds import KINDS
from ops.kube import Cluster
from ops.lease import Lease, held
from ops.settings import OpsSettings

LEASE = "haetsal-backup"
"""Shared by backup, retention and restore: none of them may run beside another."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a backup did."""

    manifest: Manifest
    sent: int
    sent_bytes: int

    def summary(self) -> str:
        """Two lines for a person."""
        manifest = self.manifest
        seconds = (manifest.finished - manifest.started).total_seconds()
        counts = ", ".join(f"{count} {kind}" for kind, count in manifest.counts.items())
        size = sum(manifest.objects.values())
        return (
            f"{manifest.id} {manifest.state} in {seconds:.0f} s: {counts}\n"
            f"{len(manifest.objects)} blobs, {size:,} bytes; sent {self.sent}, {self.sent_bytes:,} bytes"
        )


def backup(settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing) -> Result:
    """Make a backup. Raises HaetsalError, after which the attempt stands as Failed and no manifest exists."""
    namespace = settings.cluster.namespace
    with (
        held(cluster, namespace, LEASE, settings.cluster.lease_s) as lease,
        status.outcome(cluster, namespace, "backup"),
    ):
        for dead in catalog.fail_dead(objects):
            _log.warning("%s ended without a manifest; marked as Failed", dead)
        known = catalog.backup_ids(objects)
        backup_id = catalog.new_id(objects.now(), known[-1] if known else None)
        catalog.begin(objects, backup_id, f"namespace {namespace}")
        try:
            result = _make(settings, cluster, objects, sealing, lease, backup_id)
        except HaetsalError as error:
            _record_failure(objects, backup_id, error)
            raise
        _publish(cluster, namespace, result)
    return result


def _make(
    settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing, lease: Lease, backup_id: str
) -> Result:
    started = objects.now()
    problems: list[str] = []
    with Upload(objects, sealing, settings.store.threads, settings.store.reuse_days) as upload:
        items = _collect(settings, cluster, upload, problems)
        index = _index(items, upload)
        upload.flush()
        manifest = Manifest(
            format=FORMAT,
            id=backup_id,
            state=State.PARTIALLY_FAILED if problems else State.COMPLETED,
            started=started,
            finished=objects.now(),
            origin=_origin(cluster, settings.cluster.namespace),
            encrypted=sealing.cipher is not None,
            index=index,
            objects=upload.blobs,
            counts=dict(Counter(item.kind for item in items)),
            problems=tuple(problems),
        )
        lease.check()
        catalog.publish(objects, manifest, sealing)
        return Result(manifest, upload.sent, upload.sent_bytes)


def _collect(settings: OpsSettings, cluster: Cluster, upload: Upload, problems: list[str]) -> list[Item]:
    namespace = settings.cluster.namespace
    items = list(sources.kubernetes(cluster, namespace, upload))
    dashboards = sources.Dashboards(settings.cluster)
    for ray_cluster in sources.ray_clusters(cluster, namespace):
        with sources.problem(f"RayCluster {ray_cluster['metadata']['name']}", problems):
            items += dashboards.items(ray_cluster, upload)
    with sources.problem("runs", problems):
        items += sources.runs(settings.runs, upload)
    if settings.mlflow.database:
        version = None
        with sources.problem("MLflow's version", problems):
            version = sources.mlflow_version(settings.mlflow.uri, settings.cluster.request_timeout_s)
        source = open_database(settings.mlflow.database)
        with source.snapshot() as snapshot:
            items += sources.database(snapshot, source, version, upload)
    return items


def _index(items: list[Item], upload: Upload) -> tuple[str, ...]:
    lines = catalog.index_lines(items)
    return upload.add_all(lines[start : start + LARGEST_BYTES] for start in range(0, len(lines), LARGEST_BYTES))


def _origin(cluster: Cluster, namespace: str) -> Origin:
    served = {kind.name: cluster.served(kind.group, kind.name) for kind in KINDS}
    return Origin(
        namespace_uid=cluster.get("", "Namespace", namespace)["metadata"]["uid"],
        kubernetes=cluster.version(),
        namespace=namespace,
        served={name: version for name, version in served.items() if version},
    )


def _record_failure(objects: Objects, backup_id: str, error: HaetsalError) -> None:
    """The store may be what failed; then the next backup records it."""
    try:
        catalog.fail(objects, backup_id, str(error))
    except HaetsalError as second:
        _log.warning("%s: its failure cannot be recorded now: %s", backup_id, second)


def _publish(cluster: Cluster, namespace: str, result: Result) -> None:
    """The time of the newest Completed backup has a key of its own: a PartiallyFailed one must not replace it."""
    manifest = result.manifest
    values = {
        "backup_duration_seconds": (manifest.finished - manifest.started).total_seconds(),
        "backup_bytes": float(sum(manifest.objects.values())),
        "backup_sent_bytes": float(result.sent_bytes),
        "backup_partially_failed": float(manifest.state is not State.COMPLETED),
    }
    status.publish(cluster, namespace, "backup", status.exposition(values))
    if manifest.state is State.COMPLETED:
        fresh = {"backup_last_successful_timestamp_seconds": manifest.finished.timestamp()}
        status.publish(cluster, namespace, "backup-success", status.exposition(fresh))
