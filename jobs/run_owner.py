"""Who works on a run that is kept on S3, and the fence that keeps everybody else from publishing into it.

S3 has no locks. `owner.json` in the run directory names the owner; it is only ever written by conditional PUTs, of
which one of several racing writers wins. Each owner is an attempt with a number, one higher than the last, and a token
of its own. On a cluster an attempt also names the Ray cluster that it runs on (`HAETSAL_ATTEMPT`, new with every
retry), so that one whose cluster was replaced cannot come back later and pass for the newest.

Before an owner publishes anything it compares its token with the file (`Hold.confirm`): one that was cut off from the
world while a later attempt took the run over finds another's token there and stops. What it can still do within the one
PUT between look and write is harmless: directories count by their manifest's checksums, so a mixture of two attempts is
passed over, and the later attempt writes its events anew at its next checkpoint.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from jobs.errors import EnvironmentNotReady, IntegrityError
from jobs.storage import AlreadyExists, NotFound, Storage, cache_dir
from jobs.storage_errors import explained

OWNER = "owner.json"
_RACES = 8
"""Attempts that one owner can lose to others in a row before it gives up; each means that somebody else won."""


class RunBusy(EnvironmentNotReady):
    """Another process is working on the run. Exit code 3."""


class Superseded(RunBusy):
    """A later attempt took the run over; this one must not publish any more. Exit code 3."""


@dataclass(frozen=True)
class Owner:
    """The content of `owner.json`."""

    attempt: int
    """Counts the owners of the run from 1."""
    token: str
    machine: str
    pid: int
    since_unix_s: float
    held: bool
    """False once the owner has left in order; the file stays, for the number in it."""
    unit: str = ""
    """The Ray cluster that it works on; empty outside of Kubernetes."""
    past_units: tuple[str, ...] = ()
    """The Ray clusters of all attempts before, oldest first."""

    @property
    def host(self) -> str:
        """Name of the machine (on a cluster: the pod) that it runs on."""
        return self.machine.split()[0]

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.machine == this_machine()


@dataclass(frozen=True)
class Hold:
    """The right to publish into a run, as long as no later attempt took it over. Can be handed to other processes."""

    storage: Storage
    rel: str
    token: str
    attempt: int

    def confirm(self) -> None:
        """Raise Superseded if another attempt owns the run by now. One small GET."""
        found = read_owner(self.storage, self.rel)
        if found is not None and found.token == self.token:
            return
        by = f"attempt {found.attempt} on {found.host} owns it since" if found else "its owner.json is gone since"
        raise Superseded(
            f"{self.storage.address(self.rel)}: attempt {self.attempt} lost this run, {by}; nothing more is published"
        )


@contextmanager
def owned(storage: Storage, rel: str, *, take_over: bool) -> Iterator[Hold]:
    """Own the run directory `rel`, and leave it in order at the end.

    An owner that is known to be dead is replaced; the caller must hold this machine's lock file, which proves it for
    owners from here. With `take_over` one on another machine is replaced too, dead or not. Raises RunBusy otherwise.
    """
    mine = Owner(
        0, secrets.token_hex(8), this_machine(), os.getpid(), time.time(), True, os.environ.get("HAETSAL_ATTEMPT", "")
    )
    for _ in range(_RACES):
        found, version = _read(storage, rel)
        if found is not None and found.token == mine.token:
            mine = found  # our PUT arrived, only its answer was lost
            break
        if found is not None and found.held and not found.is_here and not take_over:
            raise RunBusy(
                f"{storage.address(rel)}: process {found.pid} on {found.host} is working on this run; wait for it or "
                "stop it. If that machine is gone: make resume RUN=<run-id> TAKE_OVER=1"
            )
        if found is not None:
            if mine.unit in found.past_units:
                raise Superseded(f"{storage.address(rel)}: {mine.unit} was replaced by {found.unit or found.host}")
            past = found.past_units + ((found.unit,) if found.unit not in ("", mine.unit) else ())
            mine = replace(mine, attempt=found.attempt + 1, past_units=past)
        else:
            mine = replace(mine, attempt=1)
        if _put(storage, rel, mine, version):
            break
    else:
        raise RunBusy(f"{storage.address(rel)}: other processes keep taking this run; try again")
    try:
        yield Hold(storage, rel, mine.token, mine.attempt)
    finally:
        found, version = _read(storage, rel)
        if found is not None and found.token == mine.token:
            _put(storage, rel, replace(mine, held=False), version)


def read_owner(storage: Storage, rel: str) -> Owner | None:
    """The owner of the run directory `rel`, present or past; None if it never had one."""
    return _read(storage, rel)[0]


def this_machine() -> str:
    """Name of this machine. The cache folder is part of it: only who shares it can see the other's lock file."""
    return f"{socket.gethostname()} {uuid.getnode():012x} {cache_dir()}"


def _read(storage: Storage, rel: str) -> tuple[Owner | None, str]:
    """The owner and the version (ETag) of the file. The latter is asked first: too old at worst, and a PUT fails."""
    path = storage.address(f"{rel}/{OWNER}")
    try:
        with explained(path, "read"):
            version = str(storage.filesystem.info(path)["ETag"])
            data = storage.filesystem.cat_file(path)
    except NotFound:
        return None, ""
    try:
        fields = json.loads(data)
        return Owner(**fields | {"past_units": tuple(fields["past_units"])}), version
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{path}: does not name an owner ({error}); delete it if no process is at work") from None


def _put(storage: Storage, rel: str, owner: Owner, version: str) -> bool:
    """Write `owner` if the file is still at `version` (empty: not there yet); False if somebody else was first."""
    path = storage.address(f"{rel}/{OWNER}")
    condition = {"IfMatch": version} if version else {"mode": "create"}
    try:
        with explained(path, "write"):
            storage.filesystem.pipe_file(path, json.dumps(asdict(owner)).encode(), **condition)
    except (AlreadyExists, NotFound):
        return False
    return True
