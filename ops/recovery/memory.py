"""What outlives the checker's pod: one ConfigMap, replaced only if nobody else has written it meanwhile.

Kubernetes and not S3 holds it, because S3 may be what is broken, while no repair can be made without the API server:
where memory cannot be written, nothing could be repaired either. The audit log grows without end and belongs to S3;
entries wait here, written in one piece with what they tell of, until S3 has them (ops/recovery/audit.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from jobs.errors import IntegrityError
from ops.alerts.due import Sent
from ops.kinds import MEMORY_CONFIG_MAP
from ops.kube import Changed, Cluster, Exists, Missing, Object
from ops.recovery.audit import Entry
from ops.recovery.history import Record

_KEY = "memory.json"


@dataclass(frozen=True)
class Memory:
    """All that a round knows of earlier ones."""

    history: Mapping[str, Record] = field(default_factory=dict)
    sent: Mapping[str, Mapping[str, Sent]] = field(default_factory=dict)
    """By channel and fingerprint."""
    audit: tuple[Entry, ...] = ()
    """Entries that S3 does not have yet."""
    logged: int = 0
    """Entries there have ever been."""
    repairs: int = 0
    """Repairs that were ever begun."""

    def log(self, *entries: Entry) -> Memory:
        """With more entries, numbered."""
        numbered = (replace(one, number=self.logged + number) for number, one in enumerate(entries, start=1))
        return replace(self, audit=(*self.audit, *numbered), logged=self.logged + len(entries))


class Store(Protocol):
    """Keeps the memory."""

    def load(self) -> Memory:
        """What was saved last. Raises RemoteError, IntegrityError."""

    def save(self, memory: Memory) -> None:
        """Replace what `load` or `save` last saw. Raises Changed if somebody else did, RemoteError."""


_ADAPTER = TypeAdapter(Memory)


class ConfigMapStore:
    """In the platform's namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._version: str | None = None

    def load(self) -> Memory:
        try:
            found = self._cluster.get("", "ConfigMap", MEMORY_CONFIG_MAP, self._namespace)
        except Missing:
            self._version = None
            return Memory()
        self._version = found["metadata"]["resourceVersion"]
        text = (found.get("data") or {}).get(_KEY)
        if text is None:
            return Memory()
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            raise IntegrityError(
                f"ConfigMap {MEMORY_CONFIG_MAP} in {self._namespace}: is damaged ({error.error_count()} errors); "
                "look at it, then delete it: repairs are then counted from 0"
            ) from None

    def save(self, memory: Memory) -> None:
        text = _ADAPTER.dump_json(memory).decode()
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": MEMORY_CONFIG_MAP, "namespace": self._namespace},
            "data": {_KEY: text},
        }
        if self._version:
            body["metadata"]["resourceVersion"] = self._version
        try:
            saved = (self._cluster.replace if self._version else self._cluster.create)("", body)
        except (Changed, Exists):
            saved = self._cluster.get("", "ConfigMap", MEMORY_CONFIG_MAP, self._namespace)
            if (saved.get("data") or {}).get(_KEY) != text:  # else ours: only the answer was lost
                raise Changed(f"ConfigMap {MEMORY_CONFIG_MAP}: another checker wrote it; nothing is repaired") from None
        self._version = saved["metadata"]["resourceVersion"]
