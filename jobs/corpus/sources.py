"""Which files there are to read, and how they are shared out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from jobs.dataset.reading import data_files
from jobs.errors import UsageError
from jobs.storage import Storage
from jobs.storage_errors import explained

KINDS = (".txt", ".jsonl", ".csv", ".parquet", ".html", ".htm")
_COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
_ENDINGS = f"{', '.join(KINDS)}, or these with {' or '.join(_COMPRESSIONS)} behind"

_GROUP_BYTES = 32 * 2**20
"""Small files are read together up to this size on disk, so that thousands of them do not make thousands of tasks."""


@dataclass(frozen=True)
class Source:
    """One input file. `name` is its path below the folder that was asked for, the same wherever that folder is."""

    path: str
    name: str
    size_bytes: int
    is_local: bool

    @property
    def kind(self) -> str:
        """The ending that says how rows are laid out, one of KINDS."""
        return _kind(self.path)

    @property
    def compression(self) -> Literal["gzip", "zstd"] | None:
        """How the file is compressed, by its name."""
        return _COMPRESSIONS.get(PurePosixPath(self.path).suffix.lower())

    def storage(self) -> Storage:
        """Where it lies."""
        return Storage(self.path if self.is_local else f"s3://{self.path}")


def find(addresses: Iterable[str]) -> list[Source]:
    """All input files, by name; a file that two addresses cover counts once.

    Raises UsageError for an address with no file that can be read.
    """
    found: dict[tuple[bool, str], Source] = {}
    for address in addresses:
        filesystem, files = data_files(address, lambda path: _kind(path) in KINDS, _ENDINGS)
        storage = Storage(address)
        root = storage.root.removeprefix("s3://")
        folder = root if files[0][1].startswith(f"{root}/") else re.split(r"[*?\[]", root)[0].rpartition("/")[0]
        paths = [path for _, path in files]
        with explained(address, "read"):
            sizes = filesystem.sizes(paths)
        for path, size in zip(paths, sizes, strict=True):
            name = path.removeprefix(f"{folder}/")
            found.setdefault((storage.is_local, path), Source(path, name, size, storage.is_local))
    if not found:
        raise UsageError("nothing to read; name files or folders: make preprocess INPUT=<address> OUTPUT=<folder>")
    return sorted(found.values(), key=lambda source: (source.name, source.path))


def groups(sources: Sequence[Source]) -> list[tuple[Source, ...]]:
    """Sources in their order, each group read by one task: several small files, or one large one."""
    return list(_grouped(sources))


def _grouped(sources: Sequence[Source]) -> Iterator[tuple[Source, ...]]:
    group: list[Source] = []
    for source in sources:
        size = sum(member.size_bytes for member in group)
        if group and (size + source.size_bytes > _GROUP_BYTES or group[0].is_local != source.is_local):
            yield tuple(group)
            group = []
        group.append(source)
    yield tuple(group)


def _kind(path: str) -> str:
    name = PurePosixPath(path.lower())
    return PurePosixPath(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix
