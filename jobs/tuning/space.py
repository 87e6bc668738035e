"""The search space: what is drawn, what it makes of the settings, and whether every draw makes sense.

A draw is what Optuna gives, one value per key; parameters are what the settings get. They differ where a dimension has
`times`, whose draw is a factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

from jobs.errors import UsageError
from jobs.settings import Settings, from_tree
from jobs.tuning.settings import Dimension, Value

if TYPE_CHECKING:
    import optuna

Draw = dict[str, Value]

_SAME_FOR_ALL = {
    "train.checkpoint_every_steps": "tune.evaluations sets it",
    "train.keep_checkpoints": "a trial keeps its best",
    "model.source": "losses per token of different tokenizers do not compare",
    "model.revision": "losses per token of different tokenizers do not compare",
    "model.trust_remote_code": "it is about trust, not about loss",
}


def dimensions(settings: Settings) -> dict[str, Dimension]:
    """What is varied, by dotted key."""
    sections = {name: getattr(settings.tune.space, name) for name in type(settings.tune.space).model_fields}
    return {
        f"{section}.{key}": dimension
        for section, keys in sections.items()
        for key, dimension in keys.items()
        if dimension is not None
    }


def suggest(dims: Mapping[str, Dimension], trial: optuna.Trial) -> Draw:
    """Let Optuna draw a value for every dimension."""
    return {key: _suggest(key, dimension, trial) for key, dimension in dims.items()}


def _suggest(key: str, dimension: Dimension, trial: optuna.Trial) -> Value:
    if dimension.choices is not None:
        chosen: Value = trial.suggest_categorical(key, dimension.choices)
        return chosen
    low, high = dimension.min, dimension.max
    if isinstance(low, int) and isinstance(high, int):
        return int(trial.suggest_int(key, low, high, log=dimension.log))
    assert low is not None and high is not None
    return float(trial.suggest_float(key, low, high, log=dimension.log))


def parameters(settings: Settings, draw: Mapping[str, Value]) -> Draw:
    """The values of the settings that `draw` stands for."""
    dims = dimensions(settings)
    plain = {key: value for key, value in draw.items() if not dims[key].times}
    return {key: _multiplied(settings, dims[key], draw[key], plain) if dims[key].times else draw[key] for key in draw}


def _multiplied(settings: Settings, dimension: Dimension, factor: Value, plain: Mapping[str, Value]) -> Value:
    assert dimension.times is not None
    other = plain[dimension.times] if dimension.times in plain else _setting(settings, dimension.times)
    product = float(factor) * float(other)
    return int(product) if product.is_integer() else product


def overlay(values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """`{"lora.rank": 16}` as `{"lora": {"rank": 16}}`, which is what lies in a settings file."""
    tree: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        section, key = name.split(".")
        tree.setdefault(section, {})[key] = value
    return tree


def applied(settings: Settings, values: Mapping[str, Value], where: str) -> Settings:
    """`settings` with `values` in place. Raises UsageError, beginning with `where`, for what is no valid tree."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    for section, keys in overlay(values).items():
        tree[section] |= keys
    return from_tree(tree, where)


def trial_settings(settings: Settings, draw: Mapping[str, Value]) -> Settings:
    """What one trial trains with: the draw, evenly spaced evaluations, its best checkpoint kept, no answers written."""
    tree = applied(settings, parameters(settings, draw), "tune.space")
    own = {"checkpoint_every_steps": 1 / settings.tune.evaluations, "keep_checkpoints": 1}
    return tree.model_copy(
        update={
            "train": tree.train.model_copy(update=own),
            "eval": tree.eval.model_copy(update={"generations": 0}),
        }
    )


def check(settings: Settings) -> None:
    """Raise UsageError for a space with nothing in it, or from which a draw would make no valid settings.

    Each value at the end of a range and each choice is tried, and each pair of them, because the rules of the settings
    are about one field or two.
    """
    dims = dimensions(settings)
    if not dims:
        raise UsageError("tune.space: is empty; say what to vary, as in jobs/configs/local.yaml")
    for key, dimension in dims.items():
        _check_key(settings, dims, key, dimension)
    first: Draw = {key: ends(dimension)[0] for key, dimension in dims.items()}
    for key, dimension in dims.items():
        for value in ends(dimension):
            _try(settings, first | {key: value}, (key,))
    for one, other in combinations_with_replacement(dims, 2):
        for pair in _pairs(one, dims[one], other, dims[other]):
            _try(settings, first | pair, (one, other))


def _check_key(settings: Settings, dims: Mapping[str, Dimension], key: str, dimension: Dimension) -> None:
    where = f"tune.space.{key}"
    if key in _SAME_FOR_ALL:
        raise UsageError(f"{where}: must be the same for all trials: {_SAME_FOR_ALL[key]}")
    if (other := dimension.times) is None:
        return
    if other in dims and dims[other].times:
        raise UsageError(f"{where}.times: {other} is itself relative, to {dims[other].times}; name a plain key")
    values = ends(dims[other]) if other in dims else (_setting(settings, other, where),)
    if any(isinstance(value, bool | str) or value is None for value in values):
        raise UsageError(f"{where}.times: {other} is not a number")


def _setting(settings: Settings, key: str, where: str = "tune.space") -> Any:
    section, _, name = key.partition(".")
    node = getattr(settings, section, None)
    if not name or node is None or name not in type(node).model_fields:
        raise UsageError(f"{where}.times: there is no setting {key!r}")
    return getattr(node, name)


def ends(dimension: Dimension) -> tuple[Value, ...]:
    """All choices, or both ends of the range."""
    if dimension.choices is not None:
        return dimension.choices
    assert dimension.min is not None and dimension.max is not None
    return dimension.min, dimension.max


def _pairs(one: str, of_one: Dimension, other: str, of_other: Dimension) -> Iterator[Draw]:
    for first in ends(of_one):
        for second in ends(of_other):
            yield {one: first} | {other: second}


def _try(settings: Settings, draw: Draw, keys: tuple[str, ...]) -> None:
    values = parameters(settings, draw)
    applied(
        settings, values, f"tune.space allows {' with '.join(f'{key}={values[key]}' for key in dict.fromkeys(keys))}"
    )
