"""What a backup is: a manifest that was written last, and the blobs it lists.

    attempts/<id>/InProgress      a backup began
    attempts/<id>/Failed          and ended without a manifest; holds the reason
    objects/<xx>/<sha256>         sealed content, named by the sha256 of what is stored
    manifests/<id>.json           two lines: the manifest, and its sha256 with a signature

Without manifest a backup does not exist. State words are Velero's. Times are the store's own, so that a machine with a
wrong clock cannot make a backup look newer than it is.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.errors import IntegrityError, UsageError
from jobs.storage import AlreadyExists, NotFound
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing

FORMAT = 1


class State(StrEnum):
    """How far a backup came."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    PARTIALLY_FAILED = "PartiallyFailed"
    """All that can be restored is there, but a source beside it could not be read. Never counts as fresh."""
    FAILED = "Failed"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Model):
    """Where a backup was taken."""

    namespace_uid: str
    """Tells a namespace from another one of the same name, in this cluster or another."""
    kubernetes: str
    namespace: str
    served: dict[str, str]
    """Kind to apiVersion, as saved."""


class Manifest(_Model):
    """Everything a reader must know before it reads a blob."""

    format: int
    id: str
    state: State
    started: datetime
    finished: datetime
    origin: Origin
    encrypted: bool
    index: tuple[str, ...]
    """Blobs that hold the items, one JSON object a line."""
    objects: dict[str, int]
    """Every blob of this backup, the index included: sha256 to size in bytes."""
    counts: dict[str, int]
    """Items by kind."""
    problems: tuple[str, ...] = ()
    """What could not be read; empty in a Completed backup."""


class Item(_Model):
    """One thing that was saved. `blobs` in this order are its content."""

    kind: str
    name: str
    blobs: tuple[str, ...]
    detail: dict[str, str] = {}


_STAMP = "backup-%Y%m%d-%H%M%S"


def new_id(now: datetime, previous: str | None) -> str:
    """`backup-<yyyymmdd>-<hhmmss>-<4 hex>`, which sorts after `previous` whatever the clock says."""
    if previous:
        earliest = datetime.strptime(previous.rpartition("-")[0], _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
        now = max(now, earliest)
    return f"{now.strftime(_STAMP)}-{secrets.token_hex(2)}"


def blob_name(sha256: str) -> str:
    """Where a blob lies; two hex digits in between keep folders small."""
    return f"objects/{sha256[:2]}/{sha256}"


def publish(objects: Objects, manifest: Manifest, sealing: Sealing) -> None:
    """Write the manifest, after which the backup exists. An id is never written twice."""
    payload = manifest.model_dump_json().encode()
    seal = {"sha256": hashlib.sha256(payload).hexdigest(), "signature": sealing.sign(payload)}
    data = payload + b"\n" + json.dumps(seal).encode() + b"\n"
    name = f"manifests/{manifest.id}.json"
    try:
        objects.create(name, data)
    except AlreadyExists:
        # Our own first try can have arrived although its answer was lost: the id is random, the size is ours.
        if [stored.size for stored in objects.list(name)] != [len(data)]:
            raise


def backup_ids(objects: Objects) -> list[str]:
    """Ids of all backups that exist, oldest first."""
    names = (stored.name for stored in objects.list("manifests/"))
    return sorted(name.removeprefix("manifests/").removesuffix(".json") for name in names)


def read(objects: Objects, backup_id: str, sealing: Sealing) -> Manifest:
    """The manifest of one backup, proved to be what was written.

    Raises UsageError for an id that is not there and a format that is newer than this program, IntegrityError for
    anything that was changed, and for a missing or wrong signature where one is demanded.
    """
    where = f"{objects.root}/manifests/{backup_id}.json"
    try:
        data = objects.get(f"manifests/{backup_id}.json")
    except NotFound:
        newest = backup_ids(objects)[-3:]
        hint = f"the newest are {', '.join(reversed(newest))}" if newest else "there is no backup yet"
        raise UsageError(f"{objects.root}: no backup {backup_id}; {hint}") from None
    payload, _, rest = data.partition(b"\n")
    try:
        seal = json.loads(rest)
        sha256, signature = seal["sha256"], seal["signature"]
    except (ValueError, TypeError, KeyError):
        raise IntegrityError(f"{where}: is cut off or changed; use another backup") from None
    if hashlib.sha256(payload).hexdigest() != sha256 or not rest.endswith(b"}\n"):
        raise IntegrityError(f"{where}: does not match its own sha256; use another backup")
    sealing.verify(payload, signature, where)
    manifest = _parse(payload, where)
    if manifest.id != backup_id:
        raise IntegrityError(f"{where}: is the manifest of {manifest.id}; somebody moved it")
    return manifest


def _parse(payload: bytes, where: str) -> Manifest:
    try:
        tree = json.loads(payload)
        found = tree["format"]
        if isinstance(found, int) and found > FORMAT:
            raise UsageError(f"{where}: has format {found}, this program knows {FORMAT}; restore with a newer release")
        manifest = Manifest.model_validate_json(payload)
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{where}: is not a manifest ({str(error).splitlines()[0]}); use another backup") from None
    if manifest.format != FORMAT or not set(manifest.index) <= set(manifest.objects):
        raise IntegrityError(f"{where}: is not a manifest; use another backup")
    return manifest


def newest(objects: Objects, sealing: Sealing) -> Manifest | None:
    """The newest Completed backup. A newer manifest that is damaged raises IntegrityError: a person must see it."""
    for backup_id in reversed(backup_ids(objects)):
        manifest = read(objects, backup_id, sealing)
        if manifest.state is State.COMPLETED:
            return manifest
    return None


def begin(objects: Objects, backup_id: str, reason: str) -> None:
    """Record that a backup begins."""
    objects.create(f"attempts/{backup_id}/{State.IN_PROGRESS}", reason.encode())


def fail(objects: Objects, backup_id: str, reason: str) -> None:
    """Record that a backup ended without a manifest, and why."""
    objects.put(f"attempts/{backup_id}/{State.FAILED}", reason.encode())


def states(objects: Objects) -> dict[str, State]:
    """Every id with how far it came, by names alone; a manifest's own state is inside it and shows as Completed."""
    found: dict[str, State] = {}
    for stored in objects.list("attempts/"):
        _, backup_id, state = stored.name.split("/")
        if found.get(backup_id) is not State.FAILED:
            found[backup_id] = State(state)
    return found | dict.fromkeys(backup_ids(objects), State.COMPLETED)


def fail_dead(objects: Objects) -> list[str]:
    """Mark as Failed what began and never ended. Only for the holder of the Lease: nobody else is at work then."""
    dead = [backup_id for backup_id, state in states(objects).items() if state is State.IN_PROGRESS]
    for backup_id in dead:
        fail(objects, backup_id, "its process ended before the manifest was written")
    return dead


def index_lines(items: list[Item]) -> bytes:
    """The index's content."""
    return b"".join(item.model_dump_json().encode() + b"\n" for item in items)


def parse_index(data: bytes, where: str) -> Iterator[Item]:
    """Read what `index_lines` wrote. Raises IntegrityError."""
    for line in data.splitlines():
        try:
            yield Item.model_validate_json(line)
        except ValidationError:
            raise IntegrityError(f"{where}: its index is damaged; use another backup") from None
