"""The checksum list that makes a directory provable: `manifest.json` with size and sha256 of each file in it.

A directory without a manifest is not complete; one that does not match its manifest is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jobs.errors import IntegrityError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """One file of a manifest: its size in bytes and its sha256 in hex."""

    bytes: int
    sha256: str


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(directory: Path) -> list[Path]:
    """All files at any depth but the manifest itself, relative to `directory`, sorted. Links are followed."""
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(path for path in found if path != Path(MANIFEST))


def compute(directory: Path) -> dict[str, Entry]:
    """Size and checksum of every file below `directory`, keyed by its POSIX path relative to it."""
    return {
        path.as_posix(): Entry((directory / path).stat().st_size, sha256_file(directory / path))
        for path in files_below(directory)
    }


def dump(entries: dict[str, Entry]) -> bytes:
    """The text of `manifest.json`."""
    return (json.dumps({"files": {name: vars(entry) for name, entry in entries.items()}}, indent=1) + "\n").encode()


def parse(data: bytes, where: str) -> dict[str, Entry]:
    """Read what `dump` wrote. `where` names its origin in the IntegrityError that anything else raises."""
    try:
        entries = {str(name): Entry(int(e["bytes"]), str(e["sha256"])) for name, e in json.loads(data)["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{where}: not a manifest ({error}); the copy is damaged, use another one") from None
    for name in entries:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise IntegrityError(f"{where}: names {name!r}, a file outside its directory; do not trust this copy")
    return entries


def write_manifest(directory: Path) -> None:
    """Write `manifest.json` for the files in `directory`; the caller makes the directory visible afterwards."""
    (directory / MANIFEST).write_bytes(dump(compute(directory)))


def verify_manifest(directory: Path) -> None:
    """Raise IntegrityError naming the first file of `directory` that is missing or is not what its manifest says."""
    path = directory / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"{directory}: has no {MANIFEST}, so it was never completed; use another copy")
    verify(directory, parse(path.read_bytes(), str(path)))


def verify(directory: Path, entries: dict[str, Entry]) -> None:
    """Compare the files in `directory` with `entries`, sizes first; raises IntegrityError like `verify_manifest`."""
    for name, entry in entries.items():
        path = directory / name
        if not path.is_file():
            raise IntegrityError(f"{path}: missing, though {MANIFEST} lists it; use another copy")
        if (size := path.stat().st_size) != entry.bytes:
            raise IntegrityError(f"{path}: {size} bytes where {MANIFEST} says {entry.bytes}; use another copy")
        if sha256_file(path) != entry.sha256:
            raise IntegrityError(f"{path}: content does not match the sha256 in {MANIFEST}; use another copy")
