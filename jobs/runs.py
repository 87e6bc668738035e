"""A run: its id, its directory, its state and its result.

The directory is `<storage.root>/runs/<run-id>/`, the same on a disk and on S3. `config.yaml` is its first file and
claims the id; `result.json` is its last, so a run without one did not finish. `runs/latest` names the run that finished
last, `runs/latest-<job>` the same per job.
"""

from __future__ import annotations

import difflib
import json
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.errors import EnvironmentNotReady, UsageError
from jobs.events import Event, EventLog, read_events
from jobs.redact import redact, redact_tree
from jobs.run_lock import Hold, RunBusy, exclusive
from jobs.storage import AlreadyExists, NotFound, Storage

__all__ = [
    "End",
    "Event",
    "EventLog",
    "Run",
    "RunBusy",
    "ended",
    "git_revision",
    "job_of",
    "last_end",
    "latest",
    "new_run_id",
    "read_events",
    "run_ids",
]

CONFIG = "config.yaml"
RESULT = "result.json"

_RUNS = "runs"
_RUN_ID = re.compile(r"[a-z][a-z0-9-]{0,25}-\d{8}-\d{6}-[0-9a-f]{4}")
"""At most 47 characters, the longest name that Kubernetes gives a RayJob."""
_ID_ATTEMPTS = 16


def new_run_id(job: str, now: datetime, rng: random.Random) -> str:
    """`<job>-<yyyymmdd>-<hhmmss>-<4 hex>`, in UTC, so that ids of one job sort by time on every machine."""
    run_id = f"{job}-{now.astimezone(UTC):%Y%m%d-%H%M%S}-{rng.getrandbits(16):04x}"
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(f"job {job!r}: must be 1 to 26 of a-z, 0-9 and -, beginning with a letter")
    return run_id


class Run:
    """One execution of one job. Make it with `Run.create` or `Run.open`."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self.storage = storage
        self.id = run_id
        self.hold: Hold | None = None
        """What `confirm` asks, while this process or one that it works for holds the run on S3."""
        self.supersedes = False
        """Whether `lock` takes the run over from a process on another machine."""

    @classmethod
    def create(
        cls,
        storage: Storage,
        job: str,
        config_yaml: str,
        now: datetime | None = None,
        rng: random.Random | None = None,
    ) -> Run:
        """Claim a fresh id by creating its `config.yaml`, which only one of several racing processes can.

        `rng` defaults to the system's randomness, because training seeds Python's own generator.
        """
        rng = rng or random.SystemRandom()
        for _ in range(_ID_ATTEMPTS):
            run = cls(storage, new_run_id(job, now or datetime.now(UTC), rng))
            try:
                storage.create(run.path(CONFIG), redact(config_yaml).encode())
            except AlreadyExists:
                continue
            return run
        raise EnvironmentNotReady(f"{storage.address(_RUNS)}: {_ID_ATTEMPTS} run ids in a row were taken; try again")

    @classmethod
    def attempt(cls, storage: Storage, run_id: str, config_yaml: str) -> Run:
        """The run of this id, made by whoever submitted it or by an earlier attempt, or else made now.

        Attempts are started one after the other, so this one supersedes what is still at work. Raises UsageError for
        what cannot be an id.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise UsageError(f"{run_id!r} cannot be a run id; they look like train-20261122-101500-3fa9")
        run = cls(storage, run_id)
        run.supersedes = True
        with suppress(AlreadyExists):
            storage.create(run.path(CONFIG), redact(config_yaml).encode())
        return run

    @classmethod
    def open(cls, storage: Storage, run_id: str) -> Run:
        """An existing run. Raises UsageError naming the nearest ids for an unknown one."""
        if _RUN_ID.fullmatch(run_id) and storage.exists(f"{_RUNS}/{run_id}/{CONFIG}"):
            return cls(storage, run_id)
        known = run_ids(storage)
        near = difflib.get_close_matches(run_id, known, n=3, cutoff=0.6) or known[-3:]
        hint = f"did you mean {', '.join(near)}?" if near else "there are no runs yet"
        raise UsageError(f"{storage.address(_RUNS)}: no run {run_id!r}; {hint}")

    @property
    def job(self) -> str:
        """What kind of work it is."""
        return job_of(self.id)

    def path(self, *parts: str) -> str:
        """`parts` below the run directory, relative to the storage."""
        return "/".join((_RUNS, self.id, *parts))

    def address(self, *parts: str) -> str:
        """`parts` below the run directory, as a full address."""
        return self.storage.address(self.path(*parts))

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return self.storage.exists(self.path(RESULT))

    def config(self) -> str:
        """The text of `config.yaml`."""
        return self.storage.read(self.path(CONFIG)).decode()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process alone (see `jobs.run_lock`), and clear what a killed holder left half-written.

        Raises RunBusy if another process holds it.
        """
        with exclusive(self.storage, self.path(), take_over=self.supersedes) as self.hold:
            self.storage.remove_leftovers(self.path())
            try:
                yield
            finally:
                self.hold = None

    def share(self) -> str | None:
        """What `join` needs in another process that works for the holder."""
        return f"{self.hold.attempt} {self.hold.token}" if self.hold else None

    def join(self, shared: str | None) -> None:
        """Work for the process that holds the run, until it loses it."""
        if shared:
            attempt, token = shared.split()
            self.hold = Hold(self.storage, self.path(), token, int(attempt))

    def confirm(self) -> None:
        """Raise Superseded if a later attempt took the run over; asked before anything is published into it."""
        if self.hold:
            self.hold.confirm()

    def publish(self, local: Path, *parts: str) -> None:
        """Publish a folder at `parts` below the run directory (`Storage.publish_tree`), if the run is still ours."""
        self.storage.publish_tree(local, self.path(*parts), confirm=self.confirm)

    def discard(self) -> None:
        """Delete a run that bad input ended, to leave nothing behind; a cluster's stays for who submitted it."""
        if not self.supersedes:
            self.storage.delete_tree(self.path())

    def finish(self, result: dict[str, Any]) -> None:
        """Write `result.json`, the last file of the run, and let `runs/latest` name it. Secrets are masked."""
        text = json.dumps(redact_tree(result), ensure_ascii=False, allow_nan=False, indent=2)
        self.confirm()
        self.storage.write(self.path(RESULT), f"{text}\n".encode())
        for pointer in (_pointer(None), _pointer(job_of(self.id))):
            self.storage.write(pointer, f"{self.id}\n".encode())

    def result(self) -> dict[str, Any]:
        """The content of `result.json`. Raises UsageError if the run did not finish."""
        try:
            result: dict[str, Any] = json.loads(self.storage.read(self.path(RESULT)))
        except NotFound:
            raise UsageError(
                f"{self.address()}: did not finish (it has no {RESULT}); resume it or choose another run"
            ) from None
        return result


@dataclass(frozen=True)
class End:
    """How the last attempt at an unfinished run ended, as it said itself."""

    kind: str
    """Name of the exception type: Interrupted, Diverged, …"""
    reason: str
    exit_code: int | None


def last_end(run: Run) -> End | None:
    """The end that is on record after everything else; None if the run goes on or was cut off."""
    return ended(read_events(run))


def ended(events: Sequence[Event]) -> End | None:
    """The end that `events` close with, if they do."""
    if not events or events[-1].kind != "failed":
        return None
    last = events[-1].fields
    return End(last["type"], last["reason"], last.get("exit_code"))


def run_ids(storage: Storage) -> list[str]:
    """Ids of all runs, finished or not, sorted."""
    return [name for name in storage.list(_RUNS) if _RUN_ID.fullmatch(name)]


def latest(storage: Storage, job: str | None = None) -> str:
    """Id of the run (of `job`, if given) that finished last. Raises UsageError if there is none."""
    try:
        run_id = storage.read(_pointer(job)).decode().strip()
    except NotFound:
        what = f"{job} run" if job else "run"
        raise UsageError(f"{storage.address(_RUNS)}: no {what} has finished yet") from None
    return Run.open(storage, run_id).id


def git_revision() -> str | None:
    """Commit of the checkout that this code runs from, with `-dirty` after changes; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def job_of(run_id: str) -> str:
    """The job that a run id names."""
    return run_id.rsplit("-", 3)[0]


def _pointer(job: str | None) -> str:
    return f"{_RUNS}/latest-{job}" if job else f"{_RUNS}/latest"
