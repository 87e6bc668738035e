"""Which rows repeat an earlier one, over all shards, in memory that does not grow with them.

Row numbers count through all shards in order. The keys of each shard lie on disk, sorted, so a pass over one band and
one range of keys reads one slice of each shard, and every pass holds about as many keys as the last. Rows under one key
are compared with the first of them by their signatures, which stay on disk too; those unlike it are compared with the
first among themselves, and so on. Like rows are joined to groups over all bands, and the first of a group stays. What
is held through all passes is 16 bytes per pair found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.corpus.signatures import BANDS, ENTRIES

_KEYS_PER_PASS = 1_000_000
"""About 60 MB of arrays."""
_COMPARISONS = 16
"""Rounds of comparing the rows under one key. More than this many groups under one key are boilerplate, and pairs that
are really alike also meet under other keys."""
_PAIRS_AT_ONCE = 20_000

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """Numbers of the rows to drop, sorted, and for each the number of the row that stays in its place."""

    dropped: Rows
    kept: Rows


@dataclass(frozen=True)
class Shard:
    """Where `signatures.Signatures` of one shard lie, as `.npy` files."""

    entries: Path
    keys: Path
    rows: int


class Finder:
    """Looks for duplicates among the rows of `shards`."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._starts = np.concatenate([[0], np.cumsum([shard.rows for shard in shards])]).astype(np.int64)

    def exact(self) -> Duplicates:
        """Rows with the same letters and digits in the same order, whatever their case, spaces and punctuation."""
        return _joined(self._pairs(0, 1.0, np.empty(0, np.int64)))

    def near(self, similarity: float, dropped: Rows) -> Duplicates:
        """Rows that are like an earlier one by at least `similarity`; those already `dropped` (sorted) do not count."""
        pairs = [self._pairs(band, similarity, dropped) for band in range(1, 1 + BANDS)]
        return _joined(np.unique(np.concatenate(pairs), axis=0))

    def _pairs(self, line: int, similarity: float, dropped: Rows) -> NDArray[np.int64]:
        """Shape [pairs, 2]: an earlier and a later row that are alike."""
        found = [np.empty((0, 2), np.int64)]
        for keys, rows in self._passes(line):
            is_open = ~_among(rows, dropped)
            found += self._alike(keys[is_open], rows[is_open], similarity)
        return np.concatenate(found)

    def _passes(self, line: int) -> Iterator[tuple[NDArray[np.uint64], Rows]]:
        """All keys of one line and the rows they belong to, sorted by both, in ranges with about as many keys each."""
        passes = max(1, -(-int(self._starts[-1]) // _KEYS_PER_PASS))
        bounds = [number * 2**64 // passes for number in range(passes)]
        for number, low in enumerate(bounds):
            keys, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
            for shard, start in zip(self._shards, self._starts[:-1], strict=True):
                if not shard.rows:
                    continue
                lines = np.load(shard.keys, mmap_mode="r")[line]
                first = np.searchsorted(lines["key"], np.uint64(low))
                last = np.searchsorted(lines["key"], np.uint64(bounds[number + 1])) if number + 1 < passes else None
                keys.append(lines["key"][first:last].copy())
                rows.append(start + lines["row"][first:last])
            together, owners = np.concatenate(keys), np.concatenate(rows)
            order = np.argsort(together, kind="stable")  # within a key the rows are in order already
            yield together[order], owners[order]

    def _alike(self, keys: NDArray[np.uint64], rows: Rows, similarity: float) -> Iterator[NDArray[np.int64]]:
        for _ in range(_COMPARISONS):
            begins = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
            firsts = rows[begins][np.cumsum(begins) - 1]
            others = ~begins
            if not others.any():
                return
            alike = self._similarities(firsts[others], rows[others]) >= similarity
            yield np.stack([firsts[others][alike], rows[others][alike]], axis=1)
            keys, rows = keys[others][~alike], rows[others][~alike]

    def _similarities(self, one: Rows, other: Rows) -> NDArray[np.float64]:
        """Estimated Jaccard similarity of each pair."""
        result = np.empty(len(one))
        for start in range(0, len(one), _PAIRS_AT_ONCE):
            at = slice(start, start + _PAIRS_AT_ONCE)
            result[at] = (self._entries(one[at]) == self._entries(other[at])).mean(axis=1)
        return result

    def _entries(self, rows: Rows) -> NDArray[np.uint16]:
        result = np.empty((len(rows), ENTRIES), np.uint16)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners):
            wanted = owners == owner
            entries = np.load(self._shards[owner].entries, mmap_mode="r")
            result[wanted] = entries[rows[wanted] - self._starts[owner]]
        return result


def _among(rows: Rows, chosen: Rows) -> NDArray[np.bool_]:
    """Which of `rows` are in `chosen`, which is sorted."""
    at = np.searchsorted(chosen, rows)
    at[at == len(chosen)] = 0
    return chosen[at] == rows if len(chosen) else np.zeros(len(rows), bool)


def _joined(pairs: NDArray[np.int64]) -> Duplicates:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members, ends = np.unique(pairs, return_inverse=True)
    one, other = ends.reshape(pairs.shape).T
    graph = coo_array((np.ones(len(pairs), np.int8), (one, other)), shape=(len(members), len(members)))
    _, labels = connected_components(graph, directed=False)
    _, firsts = np.unique(labels, return_index=True)
    kept = members[firsts][labels]
    is_dropped = members != kept
    return Duplicates(members[is_dropped], kept[is_dropped])
