"""What a study will do, worked out before anything is loaded: `make tune DRY_RUN=1` prints it and stops."""

from __future__ import annotations

import math

from jobs import models
from jobs.costs.spent import budget_s
from jobs.dataset import build
from jobs.settings import Settings
from jobs.training import plan as training
from jobs.training.plan import Line, Plan
from jobs.tuning import space
from jobs.tuning.settings import Dimension, TuneSettings


def make(settings: Settings, run_address: str) -> Plan:
    """The space, and steps, memory and resources of the trials: those at the space's lower and upper ends."""
    folder = models.resolve(settings.model)
    data = build(models.read_tokenizer(settings.model, folder), settings.data)
    dims, tune, scaling = space.dimensions(settings), settings.tune, settings.scaling
    ends = [{key: space.ends(dimension)[end] for key, dimension in dims.items()} for end in (0, -1)]
    small, large = (
        training.make(space.trial_settings(settings, draw), folder, data, run_address).values() for draw in ends
    )
    steps = sorted({math.ceil(int(end["steps"]) * tune.longest / tune.evaluations) for end in (small, large)})
    memory = max(int(small["memory_bytes_per_worker"]), int(large["memory_bytes_per_worker"]))
    rungs = ", ".join(f"{rung:g}" for rung in _rungs(tune))
    return Plan(
        (
            *(Line(key, key, _range(dimension), f"tune.space.{key}") for key, dimension in dims.items()),
            Line("trials", tune.samples, f"{tune.samples}, {tune.random_starts} of them random", "tune.samples"),
            Line("at_once", tune.max_concurrent, f"{tune.max_concurrent} at most", "tune.max_concurrent"),
            Line("steps_per_trial", steps[-1], " to ".join(f"{n:,}" for n in steps), "train, both ends of the space"),
            Line("steps_in_all", steps[-1] * tune.samples, f"{steps[-1] * tune.samples:,} at most", "without stopping"),
            Line("rungs", rungs, f"evaluation {rungs} of {tune.evaluations}", "tune.grace, reduction, evaluations"),
            Line("cpus_per_trial", scaling.cpus_per_worker, f"{scaling.cpus_per_worker:g}", "scaling.cpus_per_worker"),
            Line("gpus_per_trial", scaling.gpus_per_worker, f"{scaling.gpus_per_worker:g}", "scaling.gpus_per_worker"),
            Line("memory_bytes_per_trial", memory, f"{memory / 2**30:.1f} GiB", "estimate, both ends of the space"),
            Line("budget", limit_s(settings), _budget(settings), "tune.time_budget_s, cost.run_budget_usd"),
            Line("output", run_address, run_address, "storage.root"),
        ),
        data.preview,
    )


def _rungs(tune: TuneSettings) -> list[float]:
    rungs, rung = [], float(tune.grace)
    while rung < tune.longest:
        rungs.append(rung)
        rung *= tune.reduction
    return rungs


def _range(dimension: Dimension) -> str:
    if dimension.choices is not None:
        text = ", ".join(str(value) for value in dimension.choices)
    else:
        text = f"{dimension.min} to {dimension.max}{', logarithmic' if dimension.log else ''}"
    return f"{text} × {dimension.times}" if dimension.times else text


def limit_s(settings: Settings) -> float:
    """Seconds until the study's time or money is spent; infinite without a limit."""
    return min(settings.tune.time_budget_s or math.inf, budget_s(settings, "tune"))


def _budget(settings: Settings) -> str:
    seconds = limit_s(settings)
    return "none" if seconds == float("inf") else f"{seconds / 60:.1f} min"
