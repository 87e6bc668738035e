"""Rows that give an evaluation set away: they share a run of Hangul syllables with one of its texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.corpus import grams
from jobs.corpus.work import Work
from jobs.dataset.reading import data_files
from jobs.dataset.text_encoding import decode
from jobs.storage_errors import explained

_LOW_BITS = np.uint64(2**20 - 1)
_KINDS = (".jsonl", ".json", ".txt", ".csv")


@dataclass(frozen=True)
class EvaluationRuns:
    """Every run of `syllables` Hangul syllables in the evaluation sets: sorted hashes, and for each the number of its
    item in `items` (`file:line`)."""

    syllables: int
    hashes: NDArray[np.uint64]
    owners: NDArray[np.int64]
    items: tuple[str, ...]

    def overlaps(self, texts: Sequence[str]) -> list[str | None]:
        """For each text the first evaluation item that it shares a run with."""
        result: list[str | None] = []
        for batch in grams.batches(texts):
            runs = grams.windows(grams.syllables(batch), self.syllables, partial=False)
            likely = np.flatnonzero(self._is_likely[runs.flat & _LOW_BITS])
            at = np.searchsorted(self.hashes, runs.flat[likely])
            at[at == len(self.hashes)] = 0
            is_hit = self.hashes[at] == runs.flat[likely]
            rows = np.searchsorted(runs.offsets, likely[is_hit], side="right") - 1
            found: list[str | None] = [None] * len(batch)
            for row, owner in zip(rows.tolist(), self.owners[at[is_hit]].tolist(), strict=True):
                found[row] = found[row] or self.items[owner]
            result += found
        return result

    @cached_property
    def _is_likely(self) -> NDArray[np.bool_]:
        """Whether any hash has these low bits: a table that fits into the CPU's cache and settles nearly all runs."""
        table = np.zeros(int(_LOW_BITS) + 1, dtype=bool)
        table[self.hashes & _LOW_BITS] = True
        return table


def save(runs: EvaluationRuns, here: Work) -> None:
    """Put them where all workers find them."""
    here.write_array("evaluation/hashes.npy", runs.hashes)
    here.write_array("evaluation/owners.npy", runs.owners)
    here.finish("evaluation", 0, {"syllables": runs.syllables, "items": runs.items})


def load(here: Work) -> EvaluationRuns:
    """What `save` put there."""
    found = here.found("evaluation", 0)
    hashes, owners = here.read_array("evaluation/hashes.npy"), here.read_array("evaluation/owners.npy")
    return EvaluationRuns(found["syllables"], hashes, owners, tuple(found["items"]))


def read(addresses: Iterable[str], syllables: int) -> EvaluationRuns:
    """The runs of all evaluation sets at `addresses`: of every string in a JSON line, and of every line elsewhere."""
    items: list[str] = []
    texts: list[str] = []
    for address in addresses:
        filesystem, files = data_files(address, lambda path: path.endswith(_KINDS), ", ".join(_KINDS))
        for name, path in files:
            with explained(name, "read"):
                content = filesystem.cat_file(path)
            for number, line in enumerate(decode(content, name).split("\n"), start=1):
                items.append(f"{path.rpartition('/')[2]}:{number}")
                texts.append("\n".join(_strings(line)))
    runs = grams.windows(grams.syllables(texts), syllables, partial=False)
    hashes, first = np.unique(runs.flat, return_index=True)
    return EvaluationRuns(syllables, hashes, np.searchsorted(runs.offsets, first, side="right") - 1, tuple(items))


def _strings(line: str) -> list[str]:
    try:
        return list(_leaves(json.loads(line)))
    except ValueError:
        return [line]


def _leaves(value: Any) -> Iterable[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _leaves(item)
        case list():
            for item in value:
                yield from _leaves(item)
