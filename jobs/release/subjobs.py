"""The other jobs, as `make train` and its like run them: each in a process of its own, under a run id given here.

A job under `--run-id` begins a run or goes on with it, and says at once that it is finished if it is. So a step can be
cut off anywhere and called again.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from jobs import settings
from jobs.child import start
from jobs.errors import HaetsalError, Interrupted
from jobs.runs import Run, job_of, last_end
from jobs.settings import Settings
from jobs.storage import Storage

_CONFIG = "HAETSAL_STEP_CONFIG"


class StepFailed(HaetsalError):
    """A job of a step failed; the exit code is the job's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Jobs(Protocol):
    """Runs jobs."""

    def run(self, run_id: str, tree: Settings) -> Run:
        """The finished run. Raises StepFailed if it failed, Interrupted if it was stopped."""


class Processes:
    """Jobs in processes of their own: memory is given back, and a crash is theirs alone."""

    def run(self, run_id: str, tree: Settings) -> Run:
        """See Jobs."""
        given = ["--config", f"env:{_CONFIG}", "--run-id", run_id]
        process = start(job_of(run_id), given, {_CONFIG: settings.to_yaml(tree)})
        with _passing_on(process):
            exit_code = process.wait()
        return ended(Run(Storage(tree.storage.root), run_id), exit_code)


def ended(run: Run, exit_code: int) -> Run:
    """The finished run, or the error that its exit code stands for."""
    if exit_code == Interrupted.exit_code:
        raise Interrupted(f"{run.id} was stopped")
    if exit_code != 0:
        end = last_end(run)
        raise StepFailed(f"{run.id} failed: {end.reason if end else f'exit code {exit_code}'}", abs(exit_code))
    return run


def subrun_id(pipeline_id: str, job: str) -> str:
    """The run of `job` that belongs to a pipeline: the same name but for the job."""
    return f"{job}{pipeline_id.removeprefix(job_of(pipeline_id))}"


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C reaches the job by itself, as it is in the same terminal; SIGTERM must be passed on. Both let it end."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
