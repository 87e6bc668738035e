"""The diary of a run: `events.jsonl`, one JSON object a line, only ever appended to.

Everything that a run reports (metrics, checkpoints, warnings, its end) is a line here first; MLflow and the report are
made from it. On a disk the lines go straight to the run directory. S3 cannot append, so there they go to a spool file
in this user's cache folder, which `publish` uploads whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jobs.errors import IntegrityError
from jobs.redact import redact_tree
from jobs.storage import NotFound, cache_dir
from jobs.storage_errors import explained

if TYPE_CHECKING:
    from jobs.runs import Run

EVENTS = "events.jsonl"


@dataclass(frozen=True)
class Event:
    """One line: its number from 1, its time in seconds since 1970, what happened, and the fields of that kind."""

    seq: int
    time_unix_s: float
    kind: str
    fields: dict[str, Any]


def parse(data: bytes, where: str) -> list[Event]:
    """The events in `data`. A last line without its newline was cut off by a crash and does not count.

    Raises IntegrityError naming the line that is not an event.
    """
    events = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            events.append(Event(fields.pop("seq"), fields.pop("time_unix_s"), fields.pop("kind"), fields))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise IntegrityError(f"{where}: line {number} is not an event; the file is damaged") from None
    return events


def read_events(run: Run) -> list[Event]:
    """The events of a run that this process does not write; none if it has not begun."""
    try:
        return parse(run.storage.read(run.path(EVENTS)), run.address(EVENTS))
    except NotFound:
        return []


class EventLog:
    """The writer of one run's events. The run must be locked: there can be one at a time.

    Opening it again after a crash cuts off a torn last line and goes on counting.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.time) -> None:
        self.run = run
        self.path = events_file(run)
        self.listeners: list[Callable[[], None]] = []
        """Called after each append, in the appending thread; they must return at once."""
        self._clock = clock
        self._lock = threading.Lock()
        with explained(str(self.path), "open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not run.storage.is_local:
                self._restore_spool()
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            data = self.path.read_bytes()
            os.truncate(self._descriptor, data.rfind(b"\n") + 1)
        events = parse(data, str(self.path))
        self._seq = events[-1].seq if events else 0

    def append(self, kind: str, **fields: Any) -> None:
        """Add one line. Secrets are masked; `seq`, `time_unix_s` and `kind` are taken as names.

        Raises StorageError if the disk is full; no part of the line then stays behind.
        """
        with self._lock, explained(str(self.path), "write"):
            event = {"seq": self._seq + 1, "time_unix_s": self._clock(), "kind": kind, **redact_tree(fields)}
            line = json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            end = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):  # the disk became full within the line: asking for the rest names the error
                    os.write(self._descriptor, line[written:])
            except OSError:
                os.truncate(self._descriptor, end)
                raise
            self._seq += 1
        for listener in self.listeners:
            listener()

    def read(self) -> Iterator[Event]:
        """All events so far, oldest first."""
        with explained(str(self.path), "read"):
            data = self.path.read_bytes()
        yield from parse(data, str(self.path))

    def publish(self) -> None:
        """Make what was appended so far durable: forced to disk, or uploaded whole to S3.

        Raises Superseded if a later attempt writes the events of this run by now.
        """
        with explained(str(self.path), "write"):
            os.fsync(self._descriptor)
        if not self.run.storage.is_local:
            self.run.confirm()
            self.run.storage.write(self.run.path(EVENTS), self.path.read_bytes())

    def close(self) -> None:
        """Publish and close; a spool file that was uploaded is deleted."""
        try:
            self.publish()
            if not self.run.storage.is_local:
                self.path.unlink()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _restore_spool(self) -> None:
        """Start from what S3 has, unless the spool goes on from there (a crash came before its next upload)."""
        try:
            published = self.run.storage.read(self.run.path(EVENTS))
        except NotFound:
            return
        if not self.path.exists() or not self.path.read_bytes().startswith(published):
            self.path.write_bytes(published)


def events_file(run: Run) -> Path:
    """Where the lines of a run that goes on here are: in the run directory, or in the spool of this machine."""
    if run.storage.is_local:
        return run.storage.local_path(run.path(EVENTS))
    digest = hashlib.sha256(run.address().encode()).hexdigest()[:16]
    return cache_dir() / "spool" / f"{run.id}-{digest}.jsonl"
