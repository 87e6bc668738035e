"""A backup that is about to be restored: every blob read and proved before anything else happens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobs.errors import IntegrityError, UsageError
from jobs.storage import NotFound
from ops.backup import catalog
from ops.backup.catalog import Item, Manifest, blob_name
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing
from ops.kinds import KINDS, Kind
from ops.kube import Object

_SAVED_KINDS = {kind.name: kind for kind in KINDS}


class Content:
    """A verified backup. Kubernetes objects are held in memory, the database's pieces are read again when needed."""

    def __init__(self, objects: Objects, sealing: Sealing, manifest: Manifest, threads: int) -> None:
        """Read and check every blob. Raises IntegrityError naming the first that is missing or not what it must be."""
        self.manifest = manifest
        self._objects, self._sealing = objects, sealing
        if manifest.encrypted and sealing.cipher is None:
            raise UsageError(f"{manifest.id}: is encrypted; set keys.encryption to its key file")
        index = b"".join(self.blob(sha256) for sha256 in manifest.index)
        self.items = list(catalog.parse_index(index, manifest.id))
        self._bodies: dict[str, bytes] = {}
        self._check_items()
        kept = {item.blobs[0] for item in self.items if item.kind in _SAVED_KINDS}
        rest = [sha256 for sha256 in manifest.objects if sha256 not in manifest.index]
        pool = ThreadPoolExecutor(threads, thread_name_prefix="verify")
        try:
            for sha256, content in zip(rest, pool.map(lambda sha256: self._verified(sha256, kept), rest), strict=True):
                if content is not None:
                    self._bodies[sha256] = content
        finally:
            pool.shutdown(cancel_futures=True)
        for item in self.items:
            if item.kind in _SAVED_KINDS:
                self._check_body(item)

    def blob(self, sha256: str) -> bytes:
        """Content of one blob, checked."""
        where = f"{self._objects.root}/{blob_name(sha256)}"
        try:
            data = self._objects.get(blob_name(sha256))
        except NotFound:
            raise IntegrityError(
                f"{where}: is missing, though {self.manifest.id} lists it; use another backup"
            ) from None
        size = self.manifest.objects[sha256]
        if len(data) != size:
            raise IntegrityError(f"{where}: has {len(data)} bytes, {self.manifest.id} says {size}; use another backup")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(f"{where}: its content was changed; use another backup")
        return self._sealing.unseal(data, where)

    def saved(self) -> Iterator[tuple[Kind, str, bytes]]:
        """Every Kubernetes object, in the order of restore: kind, name, JSON."""
        for kind in KINDS:
            for item in self.items:
                if item.kind == kind.name:
                    yield kind, item.name, self._bodies[item.blobs[0]]

    def find(self, kind: str) -> Item | None:
        """The one item of a kind that is there once."""
        return next((item for item in self.items if item.kind == kind), None)

    def value(self, kind: str) -> Any:
        """JSON content of such an item; none without it."""
        item = self.find(kind)
        return json.loads(self.blob(item.blobs[0])) if item else None

    def stream(self, item: Item) -> Iterator[bytes]:
        """The pieces of an item, each checked again when it is read."""
        return (self.blob(sha256) for sha256 in item.blobs)

    def _verified(self, sha256: str, kept: set[str]) -> bytes | None:
        content = self.blob(sha256)
        return content if sha256 in kept else None

    def _check_items(self) -> None:
        listed = set(self.manifest.objects)
        for item in self.items:
            if not listed.issuperset(item.blobs) or (item.kind in _SAVED_KINDS and len(item.blobs) != 1):
                raise IntegrityError(f"{self.manifest.id}: {item.kind} {item.name} names blobs that are not its own")

    def _check_body(self, item: Item) -> None:
        body: Object = json.loads(self._bodies[item.blobs[0]])
        if (body.get("kind"), body.get("metadata", {}).get("name")) != (item.kind, item.name):
            raise IntegrityError(f"{self.manifest.id}: the blob of {item.kind} {item.name} is another object's")


def open_backup(objects: Objects, sealing: Sealing, backup_id: str, threads: int) -> Content:
    """Find a backup by its id or as `latest` (the newest Completed one), and verify all of it."""
    if backup_id == "latest":
        manifest = catalog.newest(objects, sealing)
        if manifest is None:
            raise UsageError(f"{objects.root}: there is no Completed backup; `make backup` makes one")
    else:
        manifest = catalog.read(objects, backup_id, sealing)
    return Content(objects, sealing, manifest, threads)
