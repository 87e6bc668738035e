"""The driver of a study: Ray Tune runs the trials, and everything that happens becomes an event of the run."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from jobs import models
from jobs.costs.spent import in_result
from jobs.errors import EnvironmentNotReady, HaetsalError, IntegrityError, Interrupted, RemoteError
from jobs.ray_session import start_ray
from jobs.runs import EventLog, Run, git_revision
from jobs.settings import Settings
from jobs.tracking import Tracker
from jobs.training.launch import graceful_stop
from jobs.tuning import record, report, search, winner
from jobs.tuning.plan import limit_s

_CLEANUP_S = "5"
"""A trial that is told to stop while it is within a step is killed after this long."""


def conduct(settings: Settings, run: Run) -> dict[str, Any]:
    """Run the study to its end, write its `result.json` and return what is in it.

    Raises the HaetsalError that ended it otherwise (IntegrityError if no trial came to a sound end); what was found
    out stays on record for `RESUME`.
    """
    with run.lock():
        with EventLog(run) as events, Tracker(settings.tracking, events):
            events.append("config", settings=settings.model_dump(mode="json"), git_revision=git_revision())
            try:
                _run_trials(settings, run, events)
                result = _publish(settings, run, events)
            except HaetsalError as error:
                events.append("failed", type=type(error).__name__, reason=str(error))
                raise
            events.append("result", **result)
        run.finish(result)
        winner.discard_checkpoints(run, record.trials(events.read()))
    return result


def _publish(settings: Settings, run: Run, events: EventLog) -> dict[str, Any]:
    found = record.trials(events.read())
    best = record.best(found)
    if best is None:
        reasons = "; ".join(f"trial {trial.number} {trial.outcome}: {trial.reason}" for trial in found.values())
        raise IntegrityError(
            f"{run.id}: none of {len(found)} trials came to a sound end: {reasons or 'no time for one'}"
        )
    winner.publish(run, best)
    result = report.figures(settings, found, best, record.spent_s(events.read()))
    result |= in_result(settings, run.job, events.read())
    result["base_model_sha256"] = models.identity(models.resolve(settings.model))  # the adapter is of use on no other
    report.publish(settings, run, result, found)
    return result


def _run_trials(settings: Settings, run: Run, events: EventLog) -> None:
    """Run what is left of the study. A spent budget ends it like the last trial.

    Raises Interrupted after Ctrl-C, with unfinished trials left to `RESUME`, EnvironmentNotReady where no trial has
    room, and RemoteError if Ray gives up.
    """

    def ended(number: int) -> None:
        events.publish()
        found = record.trials(events.read())
        winner.keep_best(run, found, number)
        print(report.line(found, number), flush=True)

    if _left(settings, events) and _left_s(settings, events) > 0:
        import ray

        start_ray()
        try:
            with graceful_stop("stopping the trials; RESUME goes on from their last checkpoints") as requested:
                deadline = time.monotonic() + _left_s(settings, events)

                def over() -> bool:
                    return requested.is_set() or time.monotonic() > deadline

                while (left := _left(settings, events)) and not over():
                    _fit(settings, run, events, left, ended, over)
                    if _left(settings, events) == left and not over():
                        raise RemoteError("Ray Tune ended without running a trial; its own log says why")
        finally:
            ray.shutdown()
        if requested.is_set():
            raise Interrupted("stopped; unfinished trials go on from their last checkpoint")
    for trial in record.trials(events.read()).values():
        if trial.outcome is None:
            reason = "the budget of the study was spent"
            events.append(record.ENDED, trial=trial.number, outcome="cut_off", reason=reason)
            ended(trial.number)


def _left(settings: Settings, events: EventLog) -> int:
    """Trials that have not ended yet."""
    known = record.trials(events.read()).values()
    return settings.tune.samples - sum(trial.outcome is not None for trial in known)


def _left_s(settings: Settings, events: EventLog) -> float:
    """Seconds until a budget is spent."""
    return limit_s(settings) - record.spent_s(events.read())


def _fit(
    settings: Settings,
    run: Run,
    events: EventLog,
    samples: int,
    ended: Callable[[int], None],
    over: Callable[[], bool],
) -> None:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the run's own events say it all
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the old output knows how to be silent
    os.environ["TUNE_FORCE_TRIAL_CLEANUP_S"] = _CLEANUP_S
    from ray import tune

    from jobs.tuning.recorder import Recorder, Stopper
    from jobs.tuning.trial import trial

    known, recorder = record.trials(events.read()), Recorder(settings, events, ended)
    with closing(recorder), tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        tune.run(
            trial,
            name=run.id,
            config={"settings": settings.model_dump(mode="json"), "root": run.storage.root, "run": run.id},
            resources_per_trial={"cpu": settings.scaling.cpus_per_worker, "gpu": settings.scaling.gpus_per_worker},
            num_samples=samples,
            max_concurrent_trials=_concurrent(settings),
            search_alg=search.searcher(settings, known),
            scheduler=search.scheduler(settings, known),
            stop=Stopper(over),
            callbacks=[recorder],
            storage_path=scratch,
            reuse_actors=True,  # the imports of a training process cost 15 s of CPU
            raise_on_failed_trial=False,
            verbose=0,
        )


def _concurrent(settings: Settings) -> int:
    """Trials at once: `tune.max_concurrent`, or as many as have room where Ray runs on this machine alone."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        return settings.tune.max_concurrent  # a cluster may grow
    there = ray.cluster_resources()
    needs = {"CPU": settings.scaling.cpus_per_worker, "GPU": settings.scaling.gpus_per_worker}
    room = min(int(there.get(name, 0) / need) for name, need in needs.items() if need)
    if room == 0:
        have = ", ".join(f"{there.get(name, 0):g} {name}" for name in needs)
        raise EnvironmentNotReady(
            f"no trial has room: it needs {needs['CPU']:g} CPU and {needs['GPU']:g} GPU, this machine has {have}; "
            "lower scaling.cpus_per_worker or scaling.gpus_per_worker"
        )
    return min(settings.tune.max_concurrent, room)
