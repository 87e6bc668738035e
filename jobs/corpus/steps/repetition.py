"""How much of a text repeats itself, after Gopher (Rae et al. 2021, table A1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MOST_FREQUENT = {2: 0.20, 3: 0.18, 4: 0.16}
"""Words per run: highest share of the characters that the most frequent run may hold."""
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Words per run: highest share of the characters that runs which occurred before may hold."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def repeated_lines(lines: list[str]) -> tuple[float, float]:
    """Shares of the lines, and of their characters, that repeat an earlier line."""
    distinct = set(lines)
    if len(distinct) == len(lines):
        return 0.0, 0.0
    characters = sum(map(len, lines))
    return 1 - len(distinct) / len(lines), 1 - sum(map(len, distinct)) / characters


def repeated_runs(words: list[str]) -> str | None:
    """What breaks Gopher's bounds on repeated runs of words, or None. Spaces do not count as characters.

    Sound texts are told from what is cheap to know, as a run cannot come more often than its parts.
    """
    first_seen: dict[str, int] = {}
    ids = np.fromiter(map(first_seen.setdefault, words, range(len(words))), np.uint64, len(words))
    if len(first_seen) == len(words):
        return None
    lengths = list(map(len, words))
    characters = sum(lengths)
    highest = _highest_count(_keys(ids, 2)) * max(lengths) * max(_MOST_FREQUENT)
    may_be_frequent = highest > min(_MOST_FREQUENT.values()) * characters
    may_be_repeated = _highest_count(_keys(ids, min(_REPEATED))) > 1
    if not (may_be_frequent or may_be_repeated):
        return None
    ends = np.concatenate(([0], np.cumsum(lengths)))
    return _frequent(ids, ends) or _repeated(ids, ends)


def _frequent(ids: NDArray[np.uint64], ends: NDArray[np.int64]) -> str | None:
    for size, bound in _MOST_FREQUENT.items():
        _, first, counts = np.unique(_keys(ids, size), return_index=True, return_counts=True)
        top = int(np.argmax(counts))
        if counts[top] == 1:
            return None
        share = int(counts[top]) * int(ends[first[top] + size] - ends[first[top]]) / int(ends[-1])
        if share > bound:
            return f"one run of {size} words holds {share:.3f} > {bound:g} of the characters"
    return None


def _repeated(ids: NDArray[np.uint64], ends: NDArray[np.int64]) -> str | None:
    for size, bound in _REPEATED.items():
        keys = _keys(ids, size)
        repeats = np.ones(len(keys), dtype=bool)
        repeats[np.unique(keys, return_index=True)[1]] = False
        if not repeats.any():
            return None
        share = _held(repeats, size, ends) / int(ends[-1])
        if share > bound:
            return f"runs of {size} words that occurred before hold {share:.3f} > {bound:g} of the characters"
    return None


def _highest_count(keys: NDArray[np.uint64]) -> int:
    ordered = np.sort(keys)
    changes = np.flatnonzero(ordered[1:] != ordered[:-1])
    if len(changes) == len(keys) - 1:
        return 1
    return int(np.diff(changes, prepend=-1, append=len(keys) - 1).max())


def _keys(ids: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """One 64-bit hash per run of `size` words."""
    count = len(ids) - size + 1
    keys = ids[:count].copy()
    for offset in range(1, size):
        keys *= _MULTIPLIER
        keys ^= keys >> np.uint64(29)
        keys += ids[offset : offset + count]
    return keys


def _held(repeats: NDArray[np.bool_], size: int, ends: NDArray[np.int64]) -> int:
    """Characters in repeated runs that do not overlap, taken from the left."""
    held, free = 0, 0
    for start in np.flatnonzero(repeats).tolist():
        if start >= free:
            held += int(ends[start + size] - ends[start])
            free = start + size
    return held
