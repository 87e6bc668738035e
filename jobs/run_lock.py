"""Keeps two processes from working on one run at once.

On a disk the run directory holds a lock file under `flock`, which the kernel releases with the process, kill -9
included. S3 has no locks: there the run has an owner (see `jobs.run_owner`), and the lock file is in this machine's
cache folder, where it proves that an owner from here is dead.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.run_owner import Hold, RunBusy, Superseded, owned, read_owner
from jobs.storage import Storage, cache_dir
from jobs.storage_errors import explained

__all__ = ["Hold", "Holder", "RunBusy", "Superseded", "exclusive", "file_lock", "holder"]

LOCK = ".lock"
_KERNEL_LOCKS = Path("/proc/locks")


@dataclass(frozen=True)
class Holder:
    """The process that works on a run."""

    pid: int
    host: str
    is_here: bool
    """Whether it is a process of this machine, which is then known to be alive."""


@contextmanager
def exclusive(storage: Storage, rel: str, *, take_over: bool = False) -> Iterator[Hold | None]:
    """Hold the run directory `rel` for this process alone; raises RunBusy at once if another holds it.

    `take_over` supersedes an owner on another machine, who then cannot publish any more. Only on S3 there is such a
    fence and a Hold: on a disk the kernel knows who is alive.
    """
    address = storage.address(rel)
    with _not_busy(_lock_file(storage, rel), address):
        if storage.is_local:
            yield None
        else:
            with owned(storage, rel, take_over=take_over) as hold:
                yield hold


def holder(storage: Storage, rel: str) -> Holder | None:
    """Who works on the run directory `rel` now, as far as can be known from here; takes and disturbs no lock."""
    pid = _flock_pid(_lock_file(storage, rel))
    if pid is not None:
        return Holder(pid, socket.gethostname(), is_here=True)
    owner = None if storage.is_local else read_owner(storage, rel)
    return Holder(owner.pid, owner.host, is_here=False) if owner and owner.held and not owner.is_here else None


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[int]:
    """Hold a lock file, whose descriptor is given. If another process has it: wait, or raise BlockingIOError."""
    with explained(str(path), "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_file(storage: Storage, rel: str) -> Path:
    if storage.is_local:
        return storage.local_path(f"{rel}/{LOCK}")
    digest = hashlib.sha256(storage.address(rel).encode()).hexdigest()[:16]
    return cache_dir() / "locks" / f"{digest}{LOCK}"


@contextmanager
def _not_busy(path: Path, address: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError:
            holder = path.read_text(errors="replace").strip() or "another process"
            raise RunBusy(f"{address}: {holder} is working on this run; wait for it or stop it") from None
        with explained(str(path), "lock"):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def _flock_pid(path: Path) -> int | None:
    """The process that has `path` under `flock`, by the kernel's own list: to ask by trying would be to lock it."""
    try:
        inode, said = path.stat().st_ino, re.match(r"process (\d+) on", path.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    held = re.findall(rf"FLOCK\s+ADVISORY\s+WRITE\s+(\d+)\s+\S+:{inode}\s", _KERNEL_LOCKS.read_text())
    # Both must agree: inode numbers are unique only within one file system.
    return int(said.group(1)) if said and said.group(1) in held else None
