"""What a study remembers, and that sampler and scheduler of a resumed study know what the first ones knew."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.runs import Event
from jobs.settings import Settings, from_tree, overlaid
from jobs.tuning import record, search, space
from jobs.tuning.trial import LOSS, PROGRESS

SETTINGS = from_tree(
    {
        "tune": {
            "space": {"train": {"learning_rate": {"min": 1e-5, "max": 1e-1, "log": True}}},
            "evaluations": 8,
            "random_starts": 3,
        }
    },
    "test",
)


def events(*lines: tuple[str, dict[str, Any]], every_s: float = 1.0) -> list[Event]:
    return [Event(i + 1, i * every_s, kind, fields) for i, (kind, fields) in enumerate(lines)]


def started(trial: int, rate: float = 1e-3) -> tuple[str, dict[str, Any]]:
    return record.STARTED, {
        "trial": trial,
        "draw": {"train.learning_rate": rate},
        "parameters": {"train.learning_rate": rate},
    }


def report(trial: int, step: int, loss: float, steps: int = 80) -> tuple[str, dict[str, Any]]:
    return record.REPORT, {"trial": trial, "step": step, "steps": steps, "eval_loss": loss}


def ended(trial: int, outcome: str = "completed") -> tuple[str, dict[str, Any]]:
    return record.ENDED, {"trial": trial, "outcome": outcome, "reason": None}


def test_best_is_the_lowest_loss_of_a_trial_without_a_bad_end() -> None:
    found = record.trials(
        events(
            *(started(n) for n in range(4)),
            report(0, 10, 3.0),
            report(0, 20, 2.0),
            report(0, 30, 2.5),
            ended(0),
            report(1, 10, 1.0),
            ended(1, "diverged"),
            report(2, 10, 1.5),
            ended(3, "died"),
        )
    )
    best = record.best(found)
    assert best
    assert (best.number, best.loss, best.best) == (0, 2.0, record.Report(20, 80, 2.0))
    assert found[2].outcome is None
    assert found[3].loss == math.inf
    assert record.outcomes(found) == {"completed": 1, "diverged": 1, "died": 1}
    assert [trial.trained_steps for trial in found.values()] == [30, 10, 10, 0]


def test_pauses_between_sessions_are_not_spent() -> None:
    first = events(("config", {}), started(0), report(0, 10, 3.0))
    second = [Event(9, 1000.0, "config", {}), Event(10, 1007.0, *ended(0))]
    assert record.spent_s([*first, *second]) == pytest.approx(2 + 7)


def test_progress_compares_trials_of_different_length() -> None:
    assert record.progress(record.Report(10, 80, 1.0), 8) == 1
    assert record.progress(record.Report(2, 10, 1.0), 8) == pytest.approx(1.6)


def learned(settings: Settings, rates_and_losses: list[tuple[float, float]]) -> dict[int, record.Trial]:
    lines = []
    for n, (rate, loss) in enumerate(rates_and_losses):
        lines += [started(n, rate), report(n, 80, loss), ended(n)]
    return record.trials(events(*lines))


def test_resumed_sampler_goes_where_the_good_trials_were() -> None:
    good = [(1e-3, 1.0), (1.2e-3, 1.1)]
    bad = [(10 ** (-5 + i / 20), 5.0) for i in range(8)] + [(10 ** (-2 + i / 8), 5.0) for i in range(8)]
    drawn = []
    for seed in range(10):
        settings = SETTINGS.model_copy(update={"train": SETTINGS.train.model_copy(update={"seed": seed})})
        study = search.optuna_study(settings, learned(settings, [*good, *bad]))
        drawn.append(space.suggest(space.dimensions(settings), study.ask())["train.learning_rate"])
    assert sum(10**-3.7 < float(rate) < 10**-2.2 for rate in drawn) >= 8


def test_resumed_study_keeps_numbers_and_runs_unfinished_trials_first_with_their_draws() -> None:
    known = record.trials(
        events(started(0), report(0, 80, 2.0), ended(0), started(1, 0.07), started(3, 0.03), ended(3, "died"))
    )
    study = search.optuna_study(SETTINGS, known)
    first, second, third = study.ask(), study.ask(), study.ask()
    assert [first.number, second.number, third.number] == [1, 2, 4]
    assert space.suggest(space.dimensions(SETTINGS), first) == {"train.learning_rate": 0.07}


def test_resumed_study_does_not_draw_the_same_random_starts_again() -> None:
    dims = space.dimensions(SETTINGS)
    study = search.optuna_study(SETTINGS, {})
    before = [space.suggest(dims, study.ask())["train.learning_rate"] for _ in range(2)]
    known = learned(SETTINGS, [(float(rate), 1.0) for rate in before])
    again = space.suggest(dims, search.optuna_study(SETTINGS, known).ask())["train.learning_rate"]
    assert again not in before


def decision(asha: Any, trial: str, evaluation: float, loss: float) -> str:
    return str(asha.on_trial_result(None, SimpleNamespace(trial_id=trial), {PROGRESS: evaluation, LOSS: loss}))


def test_asha_stops_the_worse_half_at_the_rungs_only() -> None:
    asha = search.scheduler(SETTINGS, {})
    for trial in "ab":
        asha.on_trial_add(None, SimpleNamespace(trial_id=trial))
    assert decision(asha, "a", 2, 1.0) == "CONTINUE"
    assert decision(asha, "b", 1, 9.0) == "CONTINUE"
    assert decision(asha, "b", 2, 1.5) == "STOP"
    assert decision(asha, "a", 8, 1.0) == "STOP"  # its end


def test_the_best_ends_too_where_a_trial_is_only_the_beginning_of_a_training() -> None:
    asha = search.scheduler(overlaid(SETTINGS, "tune: {stop_after: 3}", "test"), {})
    asha.on_trial_add(None, SimpleNamespace(trial_id="a"))
    assert decision(asha, "a", 2, 1.0) == "CONTINUE"
    assert decision(asha, "a", 3, 0.1) == "STOP"


def test_resumed_asha_measures_new_trials_by_the_earlier_ones() -> None:
    known = record.trials(events(started(0), report(0, 10, 3.0), report(0, 20, 1.0), report(0, 80, 0.5), ended(0)))
    asha = search.scheduler(SETTINGS, known)
    asha.on_trial_add(None, SimpleNamespace(trial_id="new"))
    assert decision(asha, "new", 2, 1.1) == "STOP"
