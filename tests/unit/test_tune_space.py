"""What a draw makes of the settings, and which spaces are refused."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from jobs import settings
from jobs.errors import UsageError
from jobs.settings import Settings, from_tree
from jobs.tuning import space

SEVEN = Path(__file__).resolve().parents[2] / "jobs/configs/qwen2.5-7b.yaml"
RSLORA = "lora.rank_stabilized has no meaning"
ALPHA = {"choices": [0.5, 1, 2], "times": "lora.rank"}


def tree(sections: dict[str, Any], **lora: Any) -> Settings:
    return from_tree({"lora": lora, "tune": {"space": sections}}, "test")


def draws(given: Settings, count: int) -> list[space.Draw]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(space.dimensions(given), study.ask()) for _ in range(count)]


def test_gpu_config_has_the_seven_dimensions() -> None:
    given = settings.load(SEVEN)
    space.check(given)
    ends = {key: space.ends(dimension) for key, dimension in space.dimensions(given).items()}
    assert ends == {
        "train.learning_rate": (1e-6, 1e-3),
        "train.batch_size": (2, 4, 8),
        "train.weight_decay": (0.0, 0.1),
        "train.warmup": (50, 500),
        "lora.rank": (16, 32, 64, 128),
        "lora.alpha": (16, 32, 64),
        "lora.dropout": (0.05, 0.3),
    }
    assert space.dimensions(given)["train.learning_rate"].log
    tune = given.tune
    assert (tune.samples, tune.max_concurrent, tune.random_starts, tune.grace, tune.reduction) == (20, 4, 5, 2, 2)


def test_draws_lie_in_the_space_and_make_valid_settings() -> None:
    given = settings.load(SEVEN)
    for draw in draws(given, 200):
        trial = space.trial_settings(given, draw)
        assert 1e-6 <= trial.train.learning_rate <= 1e-3
        assert trial.train.warmup == int(trial.train.warmup)
        assert trial.lora.rank in (16, 32, 64, 128)
    rates = [draw["train.learning_rate"] for draw in draws(given, 200)]
    assert 60 < sum(float(rate) < 10**-4.5 for rate in rates) < 140  # half of the range by order of magnitude


def test_relative_value_follows_the_other_of_the_same_trial() -> None:
    given = tree({"lora": {"alpha": ALPHA}}, rank=8)
    assert space.parameters(given, {"lora.alpha": 0.5}) == {"lora.alpha": 4}
    both = tree({"lora": {"alpha": ALPHA, "rank": {"choices": [16, 64]}}})
    assert space.parameters(both, {"lora.alpha": 0.5, "lora.rank": 64}) == {"lora.alpha": 32, "lora.rank": 64}
    for draw in draws(both, 50):
        assert space.trial_settings(both, draw).lora.alpha / float(draw["lora.rank"]) in (0.5, 1, 2)


def test_trial_trains_as_configured_but_for_its_draw_and_its_evaluations() -> None:
    given = tree({"train": {"learning_rate": {"min": 1e-5, "max": 1e-3, "log": True}}})
    trial = space.trial_settings(given, {"train.learning_rate": 2e-4})
    assert trial.train.checkpoint_every_steps == 1 / given.tune.evaluations
    own = {"learning_rate": 2e-4, "checkpoint_every_steps": 1 / 16, "keep_checkpoints": 1}
    assert trial.train == given.train.model_copy(update=own)
    assert trial.lora == given.lora
    assert trial.eval == given.eval.model_copy(update={"generations": 0})


def test_overlay_is_what_a_settings_file_holds() -> None:
    assert space.overlay({"lora.rank": 8, "train.batch_size": 2, "lora.alpha": 4.5}) == {
        "lora": {"rank": 8, "alpha": 4.5},
        "train": {"batch_size": 2},
    }


def test_null_takes_a_dimension_out() -> None:
    given = settings.load(SEVEN, "tune.space.lora.dropout=null")
    assert "lora.dropout" not in space.dimensions(given)
    assert len(space.dimensions(given)) == 6


def test_space_survives_the_config_file_of_the_run() -> None:
    given = settings.load(SEVEN)
    again = settings.from_yaml(settings.to_yaml(given), "config.yaml")
    assert again == given
    warmup = space.dimensions(again)["train.warmup"]
    assert isinstance(warmup.min, int)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({}, "tune.space: is empty"),
        ({"train": {"batch_size": {"min": 0, "max": 8}}}, "train.batch_size=0: train.batch_size: should be greater"),
        ({"train": {"batch_size": {"min": 0.5, "max": 8}}}, "train.batch_size"),
        ({"lora": {"alpha": {"choices": [1, 4], "times": "lora"}}}, "there is no setting 'lora'"),
        ({"lora": {"rank": {"choices": [1.5, 3], "times": "train.batch_size"}, "alpha": ALPHA}}, "is itself relative"),
        ({"lora": {"rank": {"choices": [1, 1]}}}, "names a value twice"),
        ({"lora": {"rank": {"choices": [1]}}}, "at least 2 items"),
        ({"lora": {"rank": {"min": 1}}}, "give both min and max"),
        ({"lora": {"method": {"choices": ["lora", "dora"], "times": "lora.rank"}}}, "times multiplies numbers"),
        ({"lora": {"method": {"choices": ["lora", "full"]}, "rank_stabilized": {"choices": [True, False]}}}, RSLORA),
    ],
)
def test_bad_space_is_refused(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        space.check(tree(sections))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
