"""The search algorithm and the scheduler of a study, with all that it has found out so far put back into them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from jobs.settings import Settings
from jobs.tuning import space
from jobs.tuning.record import Trial, progress
from jobs.tuning.settings import Dimension
from jobs.tuning.trial import LOSS, PROGRESS

_STUDY = "haetsal"


def optuna_study(settings: Settings, known: Mapping[int, Trial], storage: Any = None) -> Any:
    """An Optuna study in `storage` (none: in memory) that holds `known`, under their own numbers.

    Trials that did not end wait in it and are handed out first, with their old values.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=settings.tune.random_starts,
        multivariate=True,
        seed=settings.train.seed + len(known),  # a resumed study must not draw the same random starts again
    )
    study = optuna.create_study(storage=storage, sampler=sampler, study_name=_STUDY, direction="minimize")
    distributions = _distributions(settings)
    for number in range(max(known, default=-1) + 1):
        trial = known.get(number)
        if trial is None or trial.outcome is None:
            study.enqueue_trial(trial.draw if trial else {})
            continue
        failed = trial.outcome in ("died", "failed")
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
                value=None if failed else trial.loss if trial.sound else float("inf"),
                params=trial.draw,
                distributions=distributions,
            )
        )
    return study


def searcher(settings: Settings, known: Mapping[int, Trial]) -> Any:
    """Ray Tune's searcher over `optuna_study`. It gives each trial its `number` and its `draw`."""
    from optuna.storages import InMemoryStorage
    from ray.tune.search.optuna import OptunaSearch

    storage = InMemoryStorage()
    study = optuna_study(settings, known, storage)
    define = partial(_define, space.dimensions(settings))  # of a plain function, because Tune pickles the searcher
    return OptunaSearch(define, metric=LOSS, mode="min", sampler=study.sampler, storage=storage, study_name=_STUDY)


def _define(dims: Mapping[str, Dimension], trial: Any) -> dict[str, Any]:
    return {"number": trial.number, "draw": space.suggest(dims, trial)}


def scheduler(settings: Settings, known: Mapping[int, Trial]) -> Any:
    """ASHA, told of every evaluation of the trials in `known` that ended."""
    from ray.tune.schedulers import ASHAScheduler

    tune = settings.tune
    asha = ASHAScheduler(
        time_attr=PROGRESS,
        metric=LOSS,
        mode="min",
        max_t=tune.longest,
        grace_period=tune.grace,
        reduction_factor=tune.reduction,
    )
    for trial in known.values():
        if trial.outcome is None:
            continue
        stand_in = SimpleNamespace(trial_id=f"earlier-{trial.number}")
        asha.on_trial_add(None, stand_in)
        lowest = float("inf")
        for report in trial.reports:
            lowest = min(lowest, report.eval_loss)
            asha.on_trial_result(None, stand_in, {PROGRESS: progress(report, tune.evaluations), LOSS: lowest})
    return asha


def _distributions(settings: Settings) -> dict[str, Any]:
    """The space in Optuna's words, as `space.suggest` asks for it."""
    import optuna

    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    space.suggest(space.dimensions(settings), asked)
    return dict(asked.distributions)
