"""What a benchmark is: items, one record of each per model, and metrics made from the records."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jobs.errors import IntegrityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Takes items done and items in all."""


@dataclass(frozen=True)
class Item:
    """What one model did on one item: the numbers that metrics are made from, and what a reader wants to see."""

    id: str
    group: str
    values: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line, read back by `from_json`."""
        return json.dumps(vars(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Item:
        """An item as `to_json` wrote it."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over items, such as nats ÷ tokens; the mean over items if there is no denominator.

    `scale` multiplies the ratio, and with `exponential` the result is exp of that. A `binary` numerator is 0 or 1.
    A metric `per_token` says nothing about two models with different tokenizers.
    """

    name: str
    title: str
    numerator: str
    denominator: str | None = None
    scale: float = 1.0
    exponential: bool = False
    lower_is_better: bool | None = False
    """None where neither direction is better; then no test is made."""
    binary: bool = False
    per_token: bool = False
    chance: float | None = None
    """What guessing scores."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to be asked."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Benchmark(Protocol):
    """One set of items and how a model is scored on it. Making one reads its input, so that bad input shows early."""

    @property
    def name(self) -> str:
        """As in `evaluate.benchmarks`."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The first decides the verdict."""

    @property
    def inputs(self) -> dict[str, str]:
        """Name of each input (file, prompt template) and its sha256."""

    @property
    def preview(self) -> str:
        """The first item as the model sees it."""

    def __len__(self) -> int:
        """Number of items."""

    def run(self, loaded: Loaded, progress: Progress) -> list[Item]:
        """Score one model. Raises IntegrityError naming the item whose logits are not finite."""


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` items at even distances, so that every subject of a sorted file keeps its share."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def checked(loaded: Loaded, item: Item) -> Item:
    """`item`, if all its numbers are finite. Raises IntegrityError naming model and item otherwise."""
    if all(math.isfinite(value) for value in item.values.values()):
        return item
    raise IntegrityError(
        f"{loaded.name}: its logits for {item.detail.get('origin', item.id)} are not finite; the weights are damaged "
        "or do not fit this precision (try model.dtype=float32)"
    )
