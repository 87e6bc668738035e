"""`make retention`: delete the backups that no rule keeps, then the blobs that no backup lists.

Manifests go first: a backup that is being deleted stops existing at once and is never listed broken. Where Object Lock
holds versions, deleting hides the name and the bucket's lifecycle removes the version when its lock has ended.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.cli import main, parser
from jobs.errors import UsageError
from ops import status
from ops.backup import catalog
from ops.backup.catalog import Manifest, State
from ops.backup.objects import Objects
from ops.backup.run import LEASE
from ops.backup.sealing import Sealing
from ops.cli import opened
from ops.kube import Cluster
from ops.lease import Lease, held
from ops.settings import OpsSettings, RetentionSettings


@dataclass(frozen=True)
class Kept:
    """What matters about a backup here."""

    id: str
    state: State
    finished: datetime


def kept(backups: list[Kept], rules: RetentionSettings) -> set[str]:
    """Ids that stay: the newest Completed one of each of the last hours, days and weeks that have one.

    The newest Completed backup always stays, and everything that is newer than it: a PartiallyFailed backup is of use
    only until a whole one follows.
    """
    ordered = sorted(backups, key=lambda backup: (backup.finished, backup.id), reverse=True)
    complete = [backup for backup in ordered if backup.state is State.COMPLETED]
    stay = {backup.id for backup in itertools.takewhile(lambda backup: backup not in complete[:1], ordered)}
    stay |= {backup.id for backup in complete[:1]}
    for count, form in ((rules.hourly, "%Y%m%d%H"), (rules.daily, "%Y%m%d"), (rules.weekly, "%G%V")):
        newest: dict[str, str] = {}
        for backup in complete:
            newest.setdefault(backup.finished.strftime(form), backup.id)
        stay |= set(itertools.islice(newest.values(), count))
    return stay


@dataclass(frozen=True)
class Retained:
    """What retention did."""

    kept: tuple[str, ...]
    deleted: tuple[str, ...]
    blobs: int
    size: int

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"kept {len(self.kept)} backups, deleted {len(self.deleted)} and {self.blobs} blobs ({self.size:,} bytes)"
        )


def retain(settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing) -> Retained:
    """Delete what is not kept. Raises IntegrityError, and deletes nothing, if any manifest is damaged."""
    rules = settings.retention
    if rules.grace_days <= settings.store.reuse_days:
        raise UsageError(
            f"retention.grace_days={rules.grace_days:g} must exceed store.reuse_days={settings.store.reuse_days:g}: "
            "a running backup may rely on blobs of that age"
        )
    namespace = settings.cluster.namespace
    with held(cluster, namespace, LEASE, settings.cluster.lease_s) as lease:
        result = _retain(rules, objects, sealing, lease)
        values = {
            "retention_last_success_timestamp_seconds": objects.now().timestamp(),
            "retention_backups": float(len(result.kept)),
            "retention_deleted_bytes": float(result.size),
        }
        status.publish(cluster, namespace, "retention", status.exposition(values))
    return result


def _retain(rules: RetentionSettings, objects: Objects, sealing: Sealing, lease: Lease) -> Retained:
    cutoff = objects.now() - timedelta(days=rules.grace_days)
    # Older first, blobs before manifests: what is listed after a blob was seen can only be newer.
    candidates = {
        bytes.fromhex(stored.name.rpartition("/")[2]): stored.size
        for stored in objects.list("objects/")
        if stored.stored_at < cutoff
    }
    listed: list[Kept] = []
    used: dict[str, set[bytes]] = {}
    for backup_id in catalog.backup_ids(objects):
        manifest = catalog.read(objects, backup_id, sealing)
        listed.append(Kept(manifest.id, manifest.state, manifest.finished))
        used[backup_id] = _blobs(manifest) & candidates.keys()
    stay = kept(listed, rules)
    gone = [backup.id for backup in listed if backup.id not in stay]
    for backup_id in gone:
        lease.check()
        objects.delete(f"manifests/{backup_id}.json")
    _forget_attempts(objects, stay, cutoff)
    unused = candidates.keys() - set().union(*(used[backup_id] for backup_id in stay))
    for blob in unused:
        lease.check()
        objects.delete(catalog.blob_name(blob.hex()))
    return Retained(tuple(sorted(stay)), tuple(gone), len(unused), sum(candidates[blob] for blob in unused))


def _blobs(manifest: Manifest) -> set[bytes]:
    return {bytes.fromhex(sha256) for sha256 in manifest.objects}


def _forget_attempts(objects: Objects, stay: set[str], cutoff: datetime) -> None:
    """Records of attempts whose backup is gone, or never came to be, once they are old."""
    for stored in list(objects.list("attempts/")):
        if stored.stored_at < cutoff and stored.name.split("/")[1] not in stay:
            objects.delete(stored.name)


def command() -> None:
    """Delete and print the result."""
    it = opened(parser(__doc__ or "").parse_args())
    print(retain(it.settings, it.cluster, it.objects, it.sealing).summary())


if __name__ == "__main__":
    main(command)
