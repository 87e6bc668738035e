"""Where the tasks of a stage run: in this process, one after the other, or by Ray Data on a cluster's workers."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from jobs.corpus.work import Work
from jobs.errors import HaetsalError, RemoteError, UsageError
from jobs.ray_session import start_ray
from jobs.settings import ScalingSettings

Task = TypeVar("Task")


@contextmanager
def workers(scaling: ScalingSettings) -> Iterator[None]:
    """Ray for as long as the context lasts, if there are to be workers at all.

    Raises UsageError if this machine has fewer cores than they need; on a cluster Ray waits for them.
    """
    if scaling.workers == 0:
        yield
        return
    cores, wanted = os.cpu_count() or 1, scaling.workers * scaling.cpus_per_worker
    if not os.environ.get("RAY_ADDRESS") and wanted > cores:
        raise UsageError(
            f"scaling: {scaling.workers} workers × {scaling.cpus_per_worker:g} CPUs need {wanted:g} cores, this "
            f"machine has {cores}; lower scaling.workers, or set RAY_ADDRESS to use a cluster"
        )
    import ray

    start_ray()
    try:
        yield
    finally:
        ray.shutdown()


def run(stage: Callable[[Work, Task], None], here: Work, tasks: Sequence[Task]) -> Iterator[None]:
    """Run `stage` on all tasks; yields after each one that has ended. Raises the HaetsalError that a task raised.

    A Ray worker that dies is replaced and its tasks are run again; RemoteError if that does not help.
    """
    if here.settings.scaling.workers == 0 or not tasks:
        for task in tasks:
            stage(here, task)
            yield
    else:
        yield from _on_ray(stage, here, tasks)


def _on_ray(stage: Callable[[Work, Task], None], here: Work, tasks: Sequence[Task]) -> Iterator[None]:
    import ray.data
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False

    def run_one(row: dict[str, Any]) -> dict[str, Any]:
        try:
            stage(here, pickle.loads(row["task"]))
        except HaetsalError as error:
            return {"error": pickle.dumps(error)}
        return {"error": b""}

    scaling = here.settings.scaling
    rows = [{"task": pickle.dumps(task)} for task in tasks]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        run_one,
        num_cpus=scaling.cpus_per_worker,
        compute=ray.data.TaskPoolStrategy(size=min(scaling.workers, len(rows))),
    )
    try:
        for row in done.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield
    except HaetsalError:
        raise
    except RayError as error:
        raise RemoteError(f"Ray's workers failed for good: {str(error).strip().splitlines()[-1]}") from error
