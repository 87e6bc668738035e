"""Repairs carried out. Each touches one object, and only if it is still the one that was seen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

import yaml

from jobs.errors import HaetsalError
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing
from ops.kinds import RAY
from ops.kube import Cluster
from ops.recovery.ladder import Repair, Step
from ops.recovery.recreate import recreate
from ops.settings import OpsSettings

RESTARTED = "HAETSAL_RESTARTED"
"""Environment variable of a Serve application; a new value makes Serve start its replicas again."""


class NotThere(HaetsalError):
    """What was to be repaired has changed since it was looked at."""


class Repairer(Protocol):
    """Carries out repairs."""

    def carry_out(self, repair: Repair) -> str:
        """Do it and say what was done. Raises HaetsalError."""


class PlatformRepairer:
    """On the platform itself."""

    def __init__(self, settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing) -> None:
        self._settings, self._cluster, self._objects, self._sealing = settings, cluster, objects, sealing

    def carry_out(self, repair: Repair) -> str:
        namespace = self._settings.cluster.namespace
        only_it = {"preconditions": {"uid": repair.uid}}
        match repair.step:
            case Step.RESTART_APPLICATION:
                return self._restart(repair)
            case Step.DELETE_POD:
                self._cluster.delete("", "Pod", repair.name, namespace, only_it)
                return "deleted; its controller makes another"
            case Step.RECREATE if repair.restores:
                parts = (self._settings, self._cluster, self._objects, self._sealing)
                return recreate(*parts, repair.kind, repair.name, repair.uid)
            case Step.RECREATE:
                self._cluster.delete(RAY, repair.kind, repair.name, namespace, only_it)
                return "deleted; its owner makes another"

    def _restart(self, repair: Repair) -> str:
        """Change one environment variable in the service's configuration, which Serve rolls out to its replicas."""
        service = self._cluster.get(RAY, "RayService", repair.name, self._settings.cluster.namespace)
        config: Any = yaml.safe_load(service["spec"].get("serveConfigV2") or "")
        rows = config.get("applications", []) if isinstance(config, dict) else []
        row = next((row for row in rows if row.get("name", "default") == repair.application), None)
        if row is None:
            raise NotThere(f"RayService {repair.name}: its configuration has no application {repair.application}")
        variables = row.setdefault("runtime_env", {}).setdefault("env_vars", {})
        variables[RESTARTED] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        service["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        service.pop("status", None)
        self._cluster.replace(RAY, service)
        return f"its replicas are started again ({RESTARTED})"
