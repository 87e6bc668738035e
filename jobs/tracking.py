"""MLflow, and what happens when it is away.

Training never talks to MLflow. It appends to `events.jsonl`, and a process beside it (`jobs.mlflow_shipper`) brings the
events to MLflow. If that fails, one warning says so, the events stay where they are, and `sync` sends them later.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.errors import RemoteError, UsageError
from jobs.events import EventLog, read_events
from jobs.mlflow_client import Rejected
from jobs.mlflow_shipper import READY, STOP, UNSENT
from jobs.mlflow_sink import open_sink
from jobs.runs import Run, RunBusy, run_ids
from jobs.settings import TrackingSettings
from jobs.storage import Storage

_log = logging.getLogger(__name__)

_STARTUP_LIMIT_S = 60.0
"""Longest wait at the end of a short run for MLflow to be loaded at all, which needs no server, only CPU."""


def tracking_uri(tracking: TrackingSettings, storage: Storage) -> str | None:
    """Where events go: `tracking.uri`, else a SQLite file beside the runs. SQLite cannot live on S3: there, None."""
    if tracking.uri:
        return tracking.uri
    return f"sqlite:///{storage.local_path('mlflow.db')}" if storage.is_local else None


class Tracker:
    """Ships a run's events to MLflow while the context lasts, without ever making the run wait.

    Leaving the context waits at most `tracking.timeout_s` for what is still unsent (after MLflow is loaded). The report
    folder is read when the "result" event is shipped, so it must be complete before that event.
    """

    def __init__(self, tracking: TrackingSettings, log: EventLog) -> None:
        self._tracking = tracking
        self._events = log
        self._uri = tracking_uri(tracking, log.run.storage)
        self._ready = threading.Event()
        self._timed_out = False
        self._warned = False
        self._last_words = ""

    def __enter__(self) -> Self:
        if self._uri is None:
            self._warn("tracking.uri is not set, and SQLite cannot be kept on S3")
            return self
        given = {
            "root": self._events.run.storage.root,
            "run_id": self._events.run.id,
            "events": str(self._events.path),
            "tracking": self._tracking.model_dump(mode="json"),
            "uri": self._uri,
        }
        code = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobs.mlflow_shipper", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))},
            start_new_session=True,  # Ctrl-C is for the run, which then stops this process in order
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._reader = threading.Thread(target=self._listen, name="mlflow-shipper", daemon=True)
        self._reader.start()
        self._events.listeners.append(self._notify)
        self._notify()  # a resumed run may have events that were never sent
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._uri is None:
            return
        self._events.listeners.remove(self._notify)
        assert self._process.stdin is not None
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, STOP)  # in words, because a forked child of ours may hold the pipe open
        self._process.stdin.close()
        try:
            self._ready.wait(_STARTUP_LIMIT_S)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._tracking.timeout_s)
        finally:
            self._timed_out = self._process.poll() is None
            self._process.kill()
            self._reader.join()
            if self._timed_out:
                self._warn(f"MLflow at {self._uri} did not take everything within {self._tracking.timeout_s:g} s")

    def _notify(self) -> None:
        # A full pipe means that the shipper has news enough, a broken one that it ended, which _listen reports.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, b".")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.rstrip() == READY:
                self._ready.set()
            elif line.startswith(UNSENT):
                self._warn(line.removeprefix(UNSENT).rstrip())
            elif line.strip():
                self._last_words = line.strip()
        self._ready.set()
        if self._process.wait() != 0 and not self._timed_out:
            self._warn(f"the MLflow process ended ({self._last_words})")

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            kept = self._events.run.address("events.jsonl")
            _log.warning("%s; the run goes on, its events are kept in %s, `make sync` sends them later", reason, kept)


@dataclass(frozen=True)
class Synced:
    """What `sync` did: events sent by run id, and the runs it left alone because they are being worked on."""

    sent: dict[str, int]
    busy: list[str]


def sync(storage: Storage, tracking: TrackingSettings) -> Synced:
    """Send every event that MLflow does not have yet, of all runs. Doing it again sends and changes nothing.

    Raises RemoteError if MLflow does not answer, and at the end if it refused some runs.
    """
    uri = tracking_uri(tracking, storage)
    if uri is None:
        raise UsageError(f"{storage.root}: set tracking.uri; SQLite cannot be kept on S3")
    sent: dict[str, int] = {}
    busy, refused = [], []
    for run_id in run_ids(storage):
        run = Run(storage, run_id)
        try:
            with run.lock(), open_sink(run, tracking, uri) as sink:
                sent[run_id] = sink.send(read_events(run))
        except RunBusy:
            busy.append(run_id)  # its own tracker sends
        except Rejected as error:
            refused.append(f"{run_id}: {error}")
    if refused:
        raise RemoteError("; ".join(refused))
    return Synced(sent, busy)
