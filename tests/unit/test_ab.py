"""The A/B test: its false-positive rate under peeking, what it finds, and the rule made from it."""

from collections.abc import Callable

import numpy as np
import pytest

from jobs.errors import UsageError
from jobs.release.ab import Baseline, Observation, Outcome, badness, baseline, differences, look
from jobs.release.sequential import Column, is_certain, pairs, running_e_values
from jobs.release.settings import AbSettings
from jobs.settings import load

TESTS, PAIRS = 2_000, 400
BASE = Baseline(latency_s=1.0, answer_tokens=20.0)
Draw = Callable[[np.random.Generator, tuple[int, int]], Column]


def rare_errors(rng: np.random.Generator, shape: tuple[int, int]) -> Column:
    return (rng.random(shape) < 0.02).astype(float)


def latencies(rng: np.random.Generator, shape: tuple[int, int]) -> Column:
    return np.minimum(1.0, np.exp(rng.normal(0, 0.6, shape)) / 4)


def thumbs(rng: np.random.Generator, shape: tuple[int, int]) -> Column:
    return (rng.random(shape) < 0.6).astype(float)


def traffic(
    count: int, *, errors: float = 0.0, slower: float = 1.0, liked: float = 0.7, longer: float = 1.0, seed: int = 3
) -> list[Observation]:
    """Requests in turn to champion and challenger; the numbers are the challenger's."""
    rng = np.random.default_rng(seed)
    observed = []
    for index in range(count):
        ours = index % 2 == 1
        if rng.random() < (errors if ours else 0.0):
            observed.append(Observation(float(index), ours, failed=True))
            continue
        observed.append(
            Observation(
                float(index),
                ours,
                failed=False,
                latency_s=float(np.exp(rng.normal(0, 0.3)) * (slower if ours else 1)),
                answer_tokens=int(rng.integers(15, 26) * (longer if ours else 1)),
                score=float(rng.random() < (liked if ours else 0.7)),
            )
        )
    return observed


@pytest.mark.parametrize("draw", [rare_errors, latencies, thumbs])
def test_equal_variants_are_told_apart_less_often_than_configured_however_often_one_looks(draw: Draw) -> None:
    rng = np.random.default_rng(20261123)
    level = AbSettings().false_positive_rate
    for batch in range(4):  # in pieces, for memory
        found = draw(rng, (TESTS // 4, PAIRS)) - draw(rng, (TESTS // 4, PAIRS))
        called_worse = running_e_values(found, 0.0).max(axis=1) >= -np.log(level)
        assert called_worse.mean() <= level, (batch, called_worse.mean())


def test_a_test_with_a_fixed_horizon_would_fail_this(draw: Draw = thumbs) -> None:
    """The simulation can tell: a z-test at the same level, looked at after every pair, errs far too often."""
    found = draw(rng := np.random.default_rng(1), (500, PAIRS)) - draw(rng, (500, PAIRS))
    count = np.arange(1, PAIRS + 1)
    z = found.cumsum(axis=1) / np.sqrt(np.maximum((found**2).cumsum(axis=1), 1e-9))
    assert (z[:, count >= 30] > 1.645).any(axis=1).mean() > 0.15


def test_whole_tests_of_equal_variants_roll_back_within_the_configured_rate() -> None:
    """The rule with all its metrics, looked at every ten pairs: 200 tests, of which at most one in twenty may err."""
    settings = AbSettings()
    wrong = 0
    for seed in range(200):
        observed = traffic(400, seed=seed)
        states = [look(observed[:end], BASE, settings, is_last=False).outcome for end in range(40, 401, 40)]
        wrong += Outcome.ROLL_BACK in states
    assert wrong <= 200 * settings.false_positive_rate


@pytest.mark.parametrize(
    ("change", "metric"),
    [({"slower": 2.0}, "latency"), ({"errors": 0.05}, "errors"), ({"liked": 0.35}, "feedback")],
)
def test_a_bad_challenger_is_rolled_back_and_the_metric_is_named(change: dict[str, float], metric: str) -> None:
    found = look(traffic(800, **change), BASE, AbSettings(), is_last=False)
    assert found.outcome is Outcome.ROLL_BACK
    assert metric in found.reason


def test_an_equal_challenger_is_promoted_once_the_smallest_sample_is_there() -> None:
    settings = AbSettings(feedback_margin=0.2, preference_margin=0.2)
    assert look(traffic(2 * settings.min_pairs - 2), BASE, settings, is_last=False).outcome is Outcome.CONTINUE
    assert look(traffic(800), BASE, settings, is_last=False).outcome is Outcome.PROMOTE


def test_longer_answers_that_please_no_more_are_worse_by_preference_alone() -> None:
    found = look(traffic(1_500, longer=2.0), BASE, AbSettings(), is_last=False)
    assert [state.name for state in found.metrics if state.worse] == ["preference"]


@pytest.mark.parametrize("is_last", [True, False])
def test_without_feedback_the_test_is_held_and_never_promotes(is_last: bool) -> None:
    silent = [Observation(o.at_unix_s, o.is_challenger, o.failed, o.latency_s, o.answer_tokens) for o in traffic(900)]
    found = look(silent, BASE, AbSettings(max_pairs=400), is_last=is_last)
    assert found.outcome is Outcome.HOLD
    assert "feedback (0 pairs)" in found.reason


def test_nothing_observed_goes_on_and_at_the_end_holds() -> None:
    assert look([], BASE, AbSettings(), is_last=False).outcome is Outcome.CONTINUE
    assert look([], BASE, AbSettings(), is_last=True).outcome is Outcome.HOLD


def test_a_difference_within_the_margin_is_no_reason_to_roll_back() -> None:
    rng = np.random.default_rng(5)
    found = np.clip(rng.normal(0.02, 0.05, 4_000), -1, 1)
    assert is_certain(found, 0.0, 0.0125)  # there is a difference,
    assert found.mean() < AbSettings().latency_margin  # but one that is tolerated


def test_pairs_are_neighbours_in_time_and_nobody_is_used_twice() -> None:
    assert pairs([(False, "a"), (False, "b"), (True, "C"), (True, "D"), (True, "E"), (False, "f")]) == [
        ("C", "b"),
        ("D", "a"),
        ("E", "f"),
    ]


def test_a_failed_request_says_nothing_about_latency_and_feedback() -> None:
    failed = Observation(0.0, True, failed=True)
    assert badness("errors", failed, BASE) == 1
    assert badness("latency", failed, BASE) is None
    assert badness("preference", failed, BASE) is None
    assert differences("latency", [failed, *traffic(2)[:1]], BASE).size == 0


def test_the_baseline_is_of_the_champion_alone() -> None:
    found = baseline(traffic(200, slower=9.0))
    assert found is not None
    assert 0.8 < found.latency_s < 1.2
    assert baseline([Observation(0.0, False, failed=True)]) is None


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="must be in"):
        running_e_values(np.array([0.2, np.nan]), 0.0)
    with pytest.raises(ValueError, match="must be in"):
        running_e_values(np.array([0.2, 1.2]), 0.0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("ab.steps=[0.5,0.1]", "must rise"),
        ("ab.steps=[0.5,1.0]", "nothing to compare"),
        ("ab.min_pairs=500 ab.max_pairs=100", "ab.min_pairs 500 is above ab.max_pairs 100"),
        ("gate.max_cost_per_million=1", "needs gate.price_per_hour"),
        ("gate.max_cost_per_million=1 gate.price_per_hour=3.6 gate.min_tokens_per_second=10", "contradict each other"),
    ],
)
def test_settings_that_contradict_are_refused(overrides: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(None, overrides)
