"""What became of the rows of a shard, or of several: counts and examples that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXAMPLES = 3
"""Per rule."""
_EXAMPLE_CHARACTERS = 160
_CLASSES_PER_DECADE = 20


def length_classes(characters: NDArray[np.uint32]) -> list[int]:
    """How many rows have from 10^(k/20) to below 10^((k+1)/20) characters, for k = 0, 1, …"""
    classes = np.floor(np.log10(np.maximum(characters, 1)) * _CLASSES_PER_DECADE).astype(np.int64)
    return [int(count) for count in np.bincount(classes)]


def class_bound(number: int) -> float:
    """Characters from which on a row is in class `number`."""
    return float(10 ** (number / _CLASSES_PER_DECADE))


@dataclass
class Tally:
    """`dropped` counts rows by rule, `changed` rows by the step that changed them, `masked` personal data by kind,
    `overlaps` rows by evaluation item. `examples` holds the first few dropped rows of each rule: origin, detail,
    beginning of the text with personal data masked."""

    rows: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    overlaps: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[list[str]]] = field(default_factory=dict)

    def drop(self, rule: str, origin: str, detail: str, text: str, count: int = 1) -> None:
        """Count a row and, if it is among the first of its rule, quote it."""
        self.dropped[rule] += count
        quoted = self.examples.setdefault(rule, [])
        if len(quoted) < _EXAMPLES:
            shown = " ".join(text[: 2 * _EXAMPLE_CHARACTERS].split())
            quoted.append(
                [origin, detail, shown[:_EXAMPLE_CHARACTERS] + ("…" if len(shown) > _EXAMPLE_CHARACTERS else "")]
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self)

    @classmethod
    def total(cls, parts: Iterable[dict[str, Any]]) -> Tally:
        """The sum of what `as_dict` gave, in this order."""
        result = cls()
        for part in parts:
            result.rows += part["rows"]
            result.kept += part["kept"]
            for name in ("dropped", "changed", "masked", "overlaps"):
                getattr(result, name).update(part[name])
            for rule, quoted in part["examples"].items():
                known = result.examples.setdefault(rule, [])
                known += quoted[: _EXAMPLES - len(known)]
        return result
