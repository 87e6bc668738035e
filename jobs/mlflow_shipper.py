"""The process beside a run that follows its events and ships them to MLflow (started by `jobs.tracking.Tracker`).

It is a process and not a thread because importing MLflow alone costs 5 to 15 seconds of CPU, which a thread would take
from training through Python's global lock. It only reads what the run wrote, so it can be slow, fail or be killed
without the run noticing.

Standard input tells it when to work: any byte says that there are new events, `q` or the end of input that no more will
come. Standard output tells the run: `READY` once MLflow is loaded, `UNSENT <reason>` when MLflow takes nothing.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

from jobs.errors import HaetsalError, RemoteError
from jobs.events import Event, parse
from jobs.mlflow_sink import MlflowSink, open_sink
from jobs.runs import Run
from jobs.settings import TrackingSettings
from jobs.storage import Storage

READY = "READY"
UNSENT = "UNSENT "
STOP = b"q"

_BATCH_S = 2.0
"""Events are gathered this long before they are sent: one transaction then serves many steps."""
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
"""Waits between attempts while MLflow is away; they double from the first to the last."""


def main(arguments: str) -> None:
    """Ship until told to stop."""
    os.nice(10)
    given = json.loads(arguments)
    run = Run(Storage(given["root"]), given["run_id"])
    try:
        with open_sink(run, TrackingSettings.model_validate(given["tracking"]), given["uri"]) as sink:
            print(READY, flush=True)
            _ship(_Follower(Path(given["events"])), sink)
    except HaetsalError as error:
        print(f"{UNSENT}{error}", flush=True)


def _ship(follower: _Follower, sink: MlflowSink) -> None:
    retry_s = 0.0
    stopping = False
    while not stopping:
        stopping = _told_to_stop(retry_s) if retry_s else _wait_for_work() or _told_to_stop(_BATCH_S)
        try:
            sink.send(follower.new_events())
        except RemoteError as error:
            print(f"{UNSENT}{error}", flush=True)
            retry_s = min(2 * retry_s or _FIRST_RETRY_S, _LAST_RETRY_S)
        else:
            follower.forget()
            retry_s = 0.0


class _Follower:
    """Reads a growing events file from where it stopped, and keeps what was not sent yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset_bytes = 0
        self._unsent: list[Event] = []

    def new_events(self) -> list[Event]:
        with self._path.open("rb") as file:
            file.seek(self._offset_bytes)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._offset_bytes += len(data)
        self._unsent += parse(data, str(self._path))
        return self._unsent

    def forget(self) -> None:
        self._unsent = []


def _wait_for_work() -> bool:
    """Block until told something; true if it was to stop."""
    data = os.read(sys.stdin.fileno(), 65536)
    return not data or STOP in data


def _told_to_stop(within_s: float) -> bool:
    """Wait this long, whatever other news comes; true, and at once, if told to stop."""
    deadline = time.monotonic() + within_s
    while (left_s := deadline - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left_s)[0] and _wait_for_work():
            return True
    return False


if __name__ == "__main__":
    main(sys.argv[1])
