"""Keeps two processes from working on one run at once.

On a disk the run directory holds a lock file under `flock`, which the kernel releases with the process, kill -9
included. S3 has no locks: there the run holds `owner.json`, created by a conditional PUT that only one of several
racing processes wins, and deleted at the end. A process that was killed leaves it behind. On the same machine the next
one takes it over at once, because a lock file in the cache folder proves that the owner is dead; from another machine
nobody can prove that, so there the error says which file to delete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jobs.errors import EnvironmentNotReady
from jobs.storage import AlreadyExists, NotFound, Storage, cache_dir
from jobs.storage_errors import explained

LOCK = ".lock"
OWNER = "owner.json"


class RunBusy(EnvironmentNotReady):
    """Another process is working on the run. Exit code 3."""


@contextmanager
def exclusive(storage: Storage, rel: str) -> Iterator[None]:
    """Hold the run directory `rel` for this process alone; raises RunBusy at once if another holds it."""
    address = storage.address(rel)
    if storage.is_local:
        with _not_busy(storage.local_path(f"{rel}/{LOCK}"), address):
            yield
        return
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    with _not_busy(cache_dir() / "locks" / f"{digest}{LOCK}", address):
        _own(storage, f"{rel}/{OWNER}")
        try:
            yield
        finally:
            storage.delete_tree(f"{rel}/{OWNER}")


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


def _own(storage: Storage, rel: str) -> None:
    # The cache folder is part of the name: only who shares it can see the other's lock file.
    machine = f"{socket.gethostname()} {uuid.getnode():012x} {cache_dir()}"
    record = json.dumps({"machine": machine, "pid": os.getpid(), "since_unix_s": time.time()}).encode()
    try:
        storage.create(rel, record)
    except AlreadyExists:
        try:
            owner = json.loads(storage.read(rel))
        except NotFound:
            raise RunBusy(
                f"{storage.address(rel)}: another process took or left this run just now; try again"
            ) from None
        if owner["machine"] != machine:
            raise RunBusy(
                f"{storage.address(rel)}: process {owner['pid']} on {owner['machine'].split()[0]} is working on this "
                "run; if that machine is gone, delete this file and try again"
            ) from None
        storage.write(rel, record)
