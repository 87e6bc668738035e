"""Two ways to start the loop: in this process, or on Ray Train workers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.backends import choose
from jobs.costs.spent import refuse_overspent
from jobs.errors import BudgetSpent, Diverged, EnvironmentNotReady, HaetsalError, Interrupted, RemoteError, UsageError
from jobs.manifest import write_manifest
from jobs.ray_session import start_ray
from jobs.run_lock import Superseded
from jobs.runs import Run, read_events
from jobs.settings import Settings, from_tree
from jobs.storage import Storage
from jobs.training import checkpoints
from jobs.training.loop import Show, Worker, loop

_FOLLOW_EVERY_S = 1.0


def check_machine(settings: Settings) -> None:
    """Prove that this machine can run what is asked for, before a run is made; on a cluster its workers will see.

    Raises UsageError for more workers than CPUs, EnvironmentNotReady for a missing device or no local port.
    """
    scaling = settings.scaling
    if os.environ.get("RAY_ADDRESS") and scaling.workers:
        return
    choose(settings).prepare(settings)
    if scaling.workers == 0:
        return
    cores = os.cpu_count() or 1
    wanted = scaling.workers * scaling.cpus_per_worker
    if wanted > cores:
        raise UsageError(
            f"scaling: {scaling.workers} workers × {scaling.cpus_per_worker:g} CPUs need {wanted:g} cores, this "
            f"machine has {cores}; lower scaling.workers or scaling.cpus_per_worker, or set RAY_ADDRESS "
            "to use a cluster"
        )
    try:  # without ports Ray does not fail, it waits
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
            pass
    except OSError as error:
        raise EnvironmentNotReady(
            f"127.0.0.1: no port can be opened ({error.strerror}), and Ray's processes talk over ports; free some, "
            "or set scaling.workers=0"
        ) from None


def run_here(settings: Settings, run: Run, show: Show) -> dict[str, Any]:
    """Train in this process. Ctrl-C stops at the next step boundary with a checkpoint; a second one at once."""
    with graceful_stop("stopping after this step with a checkpoint") as requested:

        def report(metrics: dict[str, float], folder: Path) -> None:
            step, loss = int(metrics["step"]), metrics["eval_loss"]
            checkpoints.keep(run, step, loss, folder, settings.train.keep_checkpoints)

        worker = Worker(0, 1, report, requested.is_set, show)
        return _fit_in_process(lambda: loop(settings, run, worker))


def run_on_workers(settings: Settings, run: Run, show: Show) -> dict[str, Any]:
    """Train on Ray Train workers, on the cluster of `RAY_ADDRESS` or on one started on this machine for the run.

    A worker that dies is replaced and training goes on from the last checkpoint, `scaling.max_failures` times.
    """
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"  # teed prints let every dataset fingerprint dump bytecode
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "180")
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    scaling = settings.scaling
    start_ray()
    trainer = TorchTrainer(
        _on_worker,
        train_loop_config={"settings": settings.model_dump(mode="json"), "root": run.storage.root, "run": run.id}
        | {"hold": run.share()},
        scaling_config=ScalingConfig(
            num_workers=scaling.workers,
            use_gpu=scaling.gpus_per_worker > 0,
            resources_per_worker={"CPU": scaling.cpus_per_worker}
            | ({"GPU": scaling.gpus_per_worker} if scaling.gpus_per_worker else {}),
        ),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=run.address().removeprefix("s3://"),
            storage_filesystem=_arrow_filesystem(run.storage),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=settings.train.keep_checkpoints,
                checkpoint_score_attribute="eval_loss",
                checkpoint_score_order="min",
            ),
        ),
    )
    try:
        with _following(run, show):
            outcome = trainer.fit().return_value
    except TrainingFailedError as error:
        raise _cause(error) from None
    except SystemExit:  # how Ray Train ends fit() on Ctrl-C, with exit code 0
        raise Interrupted("stopped; the last checkpoint is kept") from None
    finally:
        ray.shutdown()
    if isinstance(outcome, HaetsalError):
        raise outcome
    return dict(outcome)


def _on_worker(config: dict[str, Any]) -> dict[str, Any] | HaetsalError:
    import ray.train

    context = ray.train.get_context()
    settings = from_tree(config["settings"], "settings of the run")
    run = Run.open(Storage(config["root"]), config["run"])
    run.join(config["hold"])
    try:
        run.confirm()
        refuse_overspent(settings, run)
    except (Superseded, BudgetSpent) as error:
        return error  # lost for good. Met later, by rank 0 alone, it is raised: that ends all ranks and comes here
    rank = context.get_world_rank()

    def report(metrics: dict[str, float], folder: Path) -> None:
        name = checkpoints.name_of(int(metrics["step"]))
        checkpoint = None
        if rank == 0:
            write_manifest(folder)
            run.confirm()
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)

    try:
        return loop(settings, run, Worker(rank, context.get_world_size(), report))
    except (Diverged, UsageError) as error:
        # Every rank sees the same loss and the same input and ends here. What is raised instead is tried again.
        return error


@contextmanager
def _following(run: Run, show: Show) -> Iterator[None]:
    """Show the points that the workers put on record, for as long as the context lasts."""
    done = threading.Event()

    def follow() -> None:
        seen = len(read_events(run))
        while not done.wait(_FOLLOW_EVERY_S):
            events = read_events(run)
            for event in events[seen:]:
                if event.kind == "metrics":
                    show(event.fields["step"], event.fields["steps"], event.fields["values"])
            seen = len(events)

    thread = threading.Thread(target=follow, name="follow-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _arrow_filesystem(storage: Storage) -> Any:
    """Our S3 client in Arrow's interface, so that Ray Train takes the endpoint and credentials that we take."""
    if storage.is_local:
        return None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(storage.filesystem))


def _cause(error: Exception) -> HaetsalError:
    """The error of ours that made Ray Train give up, or a RemoteError that says what it saw."""
    for failure in getattr(error, "worker_failures", {}).values():
        inner = getattr(failure, "_base_exc", failure)
        inner = getattr(inner, "cause", inner)
        if isinstance(inner, HaetsalError):
            return inner
    last = [line for line in str(error).splitlines() if line.strip()][-1]
    return RemoteError(f"the training workers failed for good: {last.strip()}")


def _fit_in_process(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    # Ray Train's own local mode: the same TorchTrainer, run in this process with no cluster to start.
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        function, scaling_config=ScalingConfig(num_workers=0), run_config=RunConfig(name="checkpoints")
    )
    return dict(trainer.fit().return_value)


@contextmanager
def graceful_stop(what: str) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second raises KeyboardInterrupt wherever the process is.

    `what` tells the user at the first what happens now.
    """
    requested = threading.Event()

    def on_signal(_number: int, _frame: Any) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        print(f"\n{what}; press Ctrl-C again to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
