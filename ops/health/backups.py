"""How fresh the backups are, by what lies in the store; and whether drills succeed, by what they publish."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from jobs.errors import IntegrityError
from jobs.metrics.definitions import PREFIX
from ops.backup import catalog
from ops.backup.catalog import Manifest, State
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing
from ops.health.observed import Backup
from ops.kinds import STATUS_CONFIG_MAP
from ops.kube import Cluster, Missing

_DRILL = f"{PREFIX}restore_drill_last_success_timestamp_seconds"


class Backups:
    """The newest backup. Manifests never change, so one that was read and proved is not read again."""

    def __init__(self, objects: Objects, sealing: Sealing) -> None:
        self._objects, self._sealing = objects, sealing
        self._known: dict[str, Manifest] = {}

    def look(self) -> Backup:
        """The newest Completed one whose manifest is what was written. Raises RemoteError, StorageError."""
        ids = catalog.backup_ids(self._objects)
        self._known = {backup_id: self._known[backup_id] for backup_id in ids if backup_id in self._known}
        damage = ""
        for backup_id in reversed(ids):
            try:
                manifest = self._read(backup_id)
            except IntegrityError as error:
                damage = damage or str(error)
                continue
            if manifest.state is State.COMPLETED:
                return Backup(backup_id, manifest.finished, damage)
        return Backup(damage=damage)

    def _read(self, backup_id: str) -> Manifest:
        if backup_id not in self._known:
            self._known[backup_id] = catalog.read(self._objects, backup_id, self._sealing)
        return self._known[backup_id]


def last_drill(cluster: Cluster, namespace: str) -> datetime | None:
    """When a drill last succeeded; none if none ever did."""
    try:
        data = cluster.get("", "ConfigMap", STATUS_CONFIG_MAP, namespace).get("data") or {}
    except Missing:
        return None
    for family in text_string_to_metric_families(data.get("drill.prom", "")):
        for sample in family.samples:
            if sample.name == _DRILL:
                return datetime.fromtimestamp(sample.value, UTC)
    return None
