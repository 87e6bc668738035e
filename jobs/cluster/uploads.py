"""Local input goes along: every `InputAddress` of the settings that is a path of this machine, named by its content.

    <storage.root>/inputs/<first 32 digits of its sha256>/files/…    with a manifest beside `files`

What is there already is not sent again, and two runs on the same data share one copy.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from jobs import manifest
from jobs.errors import UsageError
from jobs.section import Section, Uploaded
from jobs.settings import Settings, from_tree
from jobs.storage import Storage

_INPUTS = "inputs"
_REMOTE = ("hf:", "package:")


@dataclass(frozen=True)
class Upload:
    """One input: which setting names it, its files by their names below `files/`, and where it goes."""

    key: str
    source: str
    files: dict[str, Path]
    digest: str

    @property
    def rel(self) -> str:
        """Its folder, relative to the storage."""
        return f"{_INPUTS}/{self.digest}"

    def address(self, storage: Storage) -> str:
        """What the setting becomes: the file itself, or the folder that holds the files."""
        single = next(iter(self.files)) if len(self.files) == 1 and not Path(self.source).is_dir() else ""
        return storage.address("/".join(filter(None, (self.rel, "files", single))))

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def find(settings: Settings) -> list[Upload]:
    """The inputs that are on this machine. A path that is not there is left as it is: it may be the id of a model."""
    return [
        Upload(key, source, files, _digest(files))
        for key, source in _inputs(settings)
        if (files := _files(key, source))
    ]


def send(upload: Upload, storage: Storage) -> bool:
    """Bring one input to the storage; False if it is there already."""
    if storage.exists(f"{upload.rel}/{manifest.MANIFEST}"):
        return False
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        for name, path in upload.files.items():
            link = Path(scratch) / "files" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        storage.publish_tree(Path(scratch), upload.rel)
    return True


def rewritten(settings: Settings, uploads: list[Upload], storage: Storage) -> Settings:
    """`settings` with the addresses that the inputs have in `storage`."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    for upload in uploads:
        *parents, leaf = (int(part) if part.isdigit() else part for part in upload.key.split("."))
        node: Any = tree
        for parent in parents:
            node = node[parent]
        node[leaf] = upload.address(storage)
    return from_tree(tree, "settings for the cluster")


def _inputs(section: Section, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Key and value of each field that is read from; of a list of them one by one (`corpus.source.0`).

    Defaults are left out: what they name came with the code, and is in the image too.
    """
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _inputs(value, f"{prefix}{name}.")
        elif value != field.default and _is_input(field.annotation, field.metadata):
            several = enumerate(value) if isinstance(value, tuple) else ()
            yield from ((f"{prefix}{name}.{index}", item) for index, item in several)
            if isinstance(value, str):
                yield f"{prefix}{name}", value


def _is_input(annotation: Any, metadata: Iterable[Any]) -> bool:
    """Whether a field is an InputAddress, or several, or perhaps one."""
    if any(isinstance(mark, Uploaded) for mark in metadata):
        return True
    return any(_is_input(part, getattr(part, "__metadata__", ())) for part in get_args(annotation))


def _files(key: str, source: str) -> dict[str, Path]:
    """Files that `source` means on this machine; none if it is remote or not there. Hidden ones stay."""
    if "://" in source.removeprefix("file://") or source.startswith(_REMOTE):
        return {}
    path = Path(source.removeprefix("file://")).expanduser()
    if path.is_file():
        return {path.name: path}
    base, pattern = (path, "**/*") if path.is_dir() else _split_pattern(path)
    found = {file.relative_to(base).as_posix(): file for file in base.glob(pattern) if file.is_file()}
    files = {name: file for name, file in found.items() if not any(part.startswith(".") for part in Path(name).parts)}
    if found and not files:
        raise UsageError(f"{key}: {source} holds hidden files only")
    return files


def _split_pattern(path: Path) -> tuple[Path, str]:
    """The folder above the first part with a wildcard, and the rest; a path without one matches itself at most."""
    parts = list(path.parts)
    first = next((index for index, part in enumerate(parts) if set("*?[") & set(part)), len(parts) - 1)
    return Path(*parts[:first]), str(Path(*parts[first:]))


def _digest(files: dict[str, Path]) -> str:
    lines = "".join(f"{manifest.sha256_file(path)}  {name}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]
