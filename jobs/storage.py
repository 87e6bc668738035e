"""One address space for everything a run keeps: a folder on this machine, or a prefix in an S3 bucket.

The same calls work on both. What is written appears complete or not at all: single files by rename or one PUT, whole
directories by `publish_tree`. S3 endpoint and credentials come from the standard AWS environment variables or the
machine's role (`AWS_ENDPOINT_URL` for S3-compatible stores), never from settings.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec

from jobs import manifest
from jobs.errors import UsageError
from jobs.manifest import MANIFEST, Entry, sha256_file, verify_manifest, write_manifest
from jobs.storage_errors import AlreadyExists, NotFound, StorageError, explained

__all__ = [
    "AlreadyExists",
    "NotFound",
    "Storage",
    "StorageError",
    "cache_dir",
    "sha256_file",
    "verify_manifest",
    "write_manifest",
]

_PARTIAL = ".partial"
"""Suffix of what is not complete yet. Such names are hidden from `list` and start with a dot."""

_S3_CLIENT = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "total_max_attempts": 4},
}
"""Seconds and attempts, so that an endpoint that is away fails within a minute instead of the client's ten."""


def cache_dir() -> Path:
    """Cache folder of this user: `$XDG_CACHE_HOME/haetsal`, else `~/.cache/haetsal`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "haetsal"


class Storage:
    """Files below one root. Paths (`rel`) are POSIX paths relative to it.

    All methods raise StorageError when the disk or bucket cannot be used, RemoteError when the S3 endpoint does not
    answer, and NotFound for a path that is not there.
    """

    def __init__(self, root: str) -> None:
        scheme, separator, rest = root.partition("://")
        if separator and scheme not in ("s3", "file"):
            raise UsageError(f"storage.root {root}: unknown scheme {scheme}://; use a folder or s3://bucket/prefix")
        self.is_local = scheme != "s3" or not separator
        if self.is_local:
            self.root = str(Path(rest if separator else root).expanduser().resolve())
            self.filesystem = fsspec.filesystem("file", auto_mkdir=True, skip_instance_cache=True)
        else:
            if not rest.strip("/"):
                raise UsageError(f"storage.root {root}: names no bucket; use s3://bucket/prefix")
            self.root = f"s3://{rest.strip('/')}"
            self.filesystem = fsspec.filesystem(
                "s3", config_kwargs=_S3_CLIENT, use_listings_cache=False, skip_instance_cache=True
            )

    def address(self, rel: str = "") -> str:
        """Full address of `rel`: an absolute path, or `s3://…`."""
        path = PurePosixPath(rel)
        if path.is_absolute() or ".." in path.parts:
            raise UsageError(f"{rel}: must be a path below {self.root}")
        return f"{self.root}/{path}" if path.parts else self.root

    def local_path(self, rel: str = "") -> Path:
        """`rel` as a path of this machine; only a local storage has them."""
        if not self.is_local:
            raise StorageError(f"{self.address(rel)}: is not on this machine")
        return Path(self.address(rel))

    def read(self, rel: str) -> bytes:
        """The whole content of one file."""
        with explained(self.address(rel), "read"):
            data: bytes = self.filesystem.cat_file(self.address(rel))
            return data

    def write(self, rel: str, data: bytes) -> None:
        """Write or replace one file atomically: readers see the old content or the new, never a part."""
        with explained(self.address(rel), "write", len(data)):
            self._put(rel, data, exclusive=False)

    def create(self, rel: str, data: bytes) -> None:
        """Write one file atomically; raises AlreadyExists if it is there, and for all but one of racing writers."""
        with explained(self.address(rel), "write", len(data)):
            self._put(rel, data, exclusive=True)

    def exists(self, rel: str) -> bool:
        """Whether a file, or a directory with something in it, is there."""
        with explained(self.address(rel), "look up"):
            return bool(self.filesystem.exists(self.address(rel)))

    def list(self, rel: str = "") -> list[str]:
        """Names directly below a directory, sorted; empty if it is not there."""
        try:
            with explained(self.address(rel), "list"):
                found = self.filesystem.ls(self.address(rel), detail=False)
        except NotFound:
            return []
        names = {PurePosixPath(path).name for path in found} - {""}
        return sorted(name for name in names if not name.endswith(_PARTIAL))

    def delete_tree(self, rel: str) -> None:
        """Delete a file or a directory with all it holds; fine if it is not there.

        The manifest goes first, so that what is left by an interruption counts as incomplete.
        """
        with explained(self.address(rel), "delete"):
            for path in (f"{self.address(rel)}/{MANIFEST}", self.address(rel)):
                if self.filesystem.exists(path):
                    self.filesystem.rm(path, recursive=True)

    def upload_tree(self, local: Path, rel: str) -> None:
        """Copy every file below `local` to `rel`, replacing files of the same name. Not atomic: see `publish_tree`."""
        self._upload(local, rel, [path.relative_to(local) for path in local.rglob("*") if path.is_file()])

    def download_tree(self, rel: str, local: Path) -> None:
        """Copy every file below `rel` to `local`, replacing files of the same name; NotFound if there is none."""
        with explained(self.address(rel), "list"):
            root = self.filesystem._strip_protocol(self.address(rel))
            names = [PurePosixPath(path).relative_to(root) for path in self.filesystem.find(root)]
        if not names:
            raise NotFound(f"{self.address(rel)}: no such directory")
        self._download(rel, local, [name for name in names if not str(name).endswith(_PARTIAL)])

    def publish_tree(self, local: Path, rel: str, confirm: Callable[[], None] = lambda: None) -> None:
        """Copy `local` to `rel` with a fresh `manifest.json`, so that `rel` is seen complete or not at all.

        On a disk: a hidden sibling is filled, forced to disk and renamed. On S3, which has no rename: the old manifest
        goes first, then come the data, then the manifest; without manifest a directory counts as not there. What was
        at `rel` before is replaced. Two publishers of one `rel` must exclude each other (see `Run.lock`); `confirm` is
        called at the start and just before the manifest, and raises if the caller lost that right.
        """
        entries = manifest.compute(local)
        with self.publishing(rel, entries, confirm) as target:
            if self.is_local:
                for name in entries:
                    _copy_to_disk(local / name, target.local_path(name))
            else:
                target._upload(local, "", [Path(name) for name in entries])

    @contextmanager
    def publishing(
        self, rel: str, entries: dict[str, Entry], confirm: Callable[[], None] = lambda: None
    ) -> Iterator[Storage]:
        """A storage to write the files of `entries` to, which becomes `rel` as in `publish_tree` when the context ends.

        Nothing is seen at `rel` if it ends with an error; on S3 what was there before is gone then.
        """
        data = manifest.dump(entries)
        confirm()
        if not self.is_local:
            self.delete_tree(rel)
            yield Storage(self.address(rel))
            confirm()
            self.write(f"{rel}/{MANIFEST}", data)
            return
        target = self.local_path(rel)
        with explained(str(target), "publish", sum(entry.bytes for entry in entries.values())):
            target.parent.mkdir(parents=True, exist_ok=True)
            for left_by_a_killed_one in target.parent.glob(f".{glob.escape(target.name)}.*{_PARTIAL}"):
                shutil.rmtree(left_by_a_killed_one, ignore_errors=True)
            partial, old = _partial(target), _partial(target)
            try:
                yield Storage(str(partial))
                _write_local(partial / MANIFEST, data, exclusive=False)
                if target.exists():
                    target.rename(old)
                partial.rename(target)
                _sync_directory(target.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)

    def fetch_tree(self, rel: str, local: Path) -> None:
        """Copy what `publish_tree` made to `local`, which must be new or empty, and verify it.

        Only files that the manifest lists are copied. Raises IntegrityError naming the first that does not match, or
        the directory if it was never completed; `local` then stays as it was.
        """
        address = self.address(f"{rel}/{MANIFEST}")
        try:
            data = self.read(f"{rel}/{MANIFEST}")
        except NotFound:
            raise NotFound(f"{self.address(rel)}: not there or never completed (it has no {MANIFEST})") from None
        entries = manifest.parse(data, address)
        size = sum(entry.bytes for entry in entries.values())
        with explained(str(local), "write", size):
            local.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=local.parent, prefix=".", suffix=_PARTIAL) as folder:
                partial = Path(folder) / local.name
                self._download(rel, partial, [PurePosixPath(name) for name in entries], size)
                manifest.verify(partial, entries)
                (partial / MANIFEST).write_bytes(data)
                partial.rename(local)

    def remove_leftovers(self, rel: str) -> None:
        """Delete what killed writers left half-done below `rel`; only for a caller who is the one writer there."""
        if self.is_local:
            with explained(self.address(rel), "clean"):
                for path in sorted(self.local_path(rel).rglob(f".*{_PARTIAL}")):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Prove that the root takes writes by writing and deleting a small file; for use before long work."""
        probe = f".{secrets.token_hex(4)}{_PARTIAL}"
        with explained(self.root, "write"):
            self._put(probe, b"haetsal writes and deletes here\n", exclusive=False)
            self.filesystem.rm(self.address(probe))

    def _put(self, rel: str, data: bytes, *, exclusive: bool) -> None:
        if self.is_local:
            _write_local(self.local_path(rel), data, exclusive=exclusive)
        else:
            self.filesystem.pipe_file(self.address(rel), data, mode="create" if exclusive else "overwrite")

    def _upload(self, local: Path, rel: str, names: Sequence[Path]) -> None:
        # One by one: fsspec's parallel copy goes on in the background after the first failure.
        size = sum((local / name).stat().st_size for name in names)
        with explained(self.address(rel), "write", size):
            for name in names:
                self.filesystem.put_file(str(local / name), f"{self.address(rel)}/{name.as_posix()}")

    def _download(self, rel: str, local: Path, names: Sequence[PurePosixPath], size_bytes: int | None = None) -> None:
        with explained(self.address(rel), "read", size_bytes, target=local):
            for name in names:
                (local / name).parent.mkdir(parents=True, exist_ok=True)
                self.filesystem.get_file(f"{self.address(rel)}/{name}", str(local / name))


def _partial(target: Path) -> Path:
    return target.parent / f".{target.name}.{secrets.token_hex(4)}{_PARTIAL}"


def _write_local(path: Path, data: bytes, *, exclusive: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            try:
                os.link(partial, path)  # fails if the name is taken, which a rename does not
            except FileExistsError:
                raise AlreadyExists(f"{path}: is there already") from None
        else:
            partial.replace(path)
        _sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _copy_to_disk(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Force a rename to disk; without it a power cut can bring the old name back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
