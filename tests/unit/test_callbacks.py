"""The guard against a lost run, and the figures of the curve."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import Diverged
from jobs.training import callbacks
from jobs.training.callbacks import Curve, Guard


def guard(losses: Iterable[float], max_ratio: float = 3.0) -> int:
    """Feed the guard; return how many points it took."""
    watching = Guard(max_ratio)
    for step, loss in enumerate(losses, 1):
        watching.on_log(None, SimpleNamespace(global_step=step), None, {"loss": loss, "learning_rate": 1e-3})
    return step


@pytest.mark.parametrize("name", ["loss", "eval_loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_ends_the_run(name: str, value: float) -> None:
    state = SimpleNamespace(global_step=7)
    with pytest.raises(Diverged, match=rf"{name} is {value} at step 7; lower train.learning_rate \(now 0.0005\)"):
        Guard(3.0).on_log(None, state, None, {"loss": 2.0, "learning_rate": 5e-4, name: value})


def test_run_away_ends_the_run_once_the_mean_shows_it() -> None:
    # Means of five: best is 2.0; after k points of 12 the mean is 2 + 2k, above 6 from k = 3.
    with pytest.raises(Diverged, match=r"rose to 8 at step 13, 4\.0 times its best \(2\)"):
        guard([2.0] * 10 + [12.0] * 5)


def test_noise_and_single_peaks_do_not() -> None:
    rng = random.Random(1)
    falling = [4 * math.exp(-step / 50) + 1 + rng.uniform(-0.9, 0.9) for step in range(300)]
    falling[100] = 9.0  # one bad batch

    assert guard(falling) == 300


def test_evaluation_points_are_not_part_of_the_mean() -> None:
    watching = Guard(3.0)
    for step in range(20):
        watching.on_log(None, SimpleNamespace(global_step=step), None, {"eval_loss": 1.0 + 10 * (step > 9)})


def test_curve_counts_tokens_over_the_time_that_steps_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 100.0, 102.0, 200.0, 201.0])  # two steps of 2 s, an evaluation between, one of 1 s
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(clock))
    points: list[tuple[int, int, dict[str, Any]]] = []
    curve = Curve(lambda *point: points.append(point))

    for _ in range(2):
        curve.on_step_begin()
        curve.on_step_end()
    curve.on_log(None, SimpleNamespace(global_step=2, max_steps=3), None, {"loss": 2.0, "num_tokens": 400})
    curve.on_log(None, SimpleNamespace(global_step=2, max_steps=3), None, {"eval_loss": 1.5, "epoch": 0.5})
    curve.on_step_begin()
    curve.on_step_end()
    curve.on_log(None, SimpleNamespace(global_step=3, max_steps=3), None, {"loss": 1.0, "num_tokens": 700})

    assert points == [
        (2, 3, {"loss": 2.0, "tokens": 400, "tokens_per_second": 100.0, "busy_seconds": 4.0, "step_seconds": 2.0}),
        (2, 3, {"eval_loss": 1.5}),
        (3, 3, {"loss": 1.0, "tokens": 300, "tokens_per_second": 300.0, "busy_seconds": 1.0, "step_seconds": 1.0}),
    ]
    assert curve.step_seconds == [2.0, 2.0, 1.0]
    assert curve.tokens == 700


def test_curve_passes_no_value_that_json_cannot_hold() -> None:
    points: list[tuple[int, int, dict[str, Any]]] = []
    curve = Curve(lambda *point: points.append(point))

    curve.on_log(None, SimpleNamespace(global_step=1, max_steps=2), None, {"loss": math.nan, "grad_norm": 1.0})
    curve.on_log(None, SimpleNamespace(global_step=1, max_steps=2), None, {"loss": math.nan})

    assert points == [(1, 2, {"grad_norm": 1.0})]
