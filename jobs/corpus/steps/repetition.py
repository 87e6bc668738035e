"""How much of a text repeats itself, after Gopher (Rae et al. 2021, table A1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MOST_FREQUENT = {2: 0.20, 3: 0.18, 4: 0.16}
"""Words per run: highest share of the characters that the most frequent run may hold."""
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Words per run: highest share of the characters that runs which occurred before may hold."""
_SHORTEST = min(_REPEATED)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def repeated_lines(lines: list[str]) -> tuple[float, float]:
    """Shares of the lines, and of their characters, that repeat an earlier line."""
    distinct = set(lines)
    if len(distinct) == len(lines):
        return 0.0, 0.0
    characters = sum(map(len, lines))
    return 1 - len(distinct) / len(lines), 1 - sum(map(len, distinct)) / characters


def repeated_runs(words: list[str]) -> str | None:
    """What breaks Gopher's bounds on repeated runs of words, or None. Spaces do not count as characters."""
    first_seen: dict[str, int] = {}
    ids = np.fromiter(map(first_seen.setdefault, words, range(len(words))), np.uint64, len(words))
    if len(first_seen) == len(words):
        return None
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = np.concatenate(([0], np.cumsum(lengths)))
    characters = int(ends[-1])
    for size, bound in _MOST_FREQUENT.items():
        keys = _keys(ids, size)
        distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
        if len(distinct) == len(keys):
            return None  # no run of this size comes twice, so no longer one does
        top = int(np.argmax(counts))
        share = int(counts[top]) * int(ends[first[top] + size] - ends[first[top]]) / characters
        if share > bound:
            return f"one run of {size} words holds {share:.3f} > {bound:g} of the characters"
    for size, bound in _REPEATED.items():
        repeats = _repeats(_keys(ids, size))
        if size == _SHORTEST and _covered(repeats, size, lengths) <= min(_REPEATED.values()) * characters:
            return None  # each longer run that repeats is made of runs of this size that do
        share = _held(repeats, size, ends) / characters
        if share > bound:
            return f"runs of {size} words that occurred before hold {share:.3f} > {bound:g} of the characters"
    return None


def _keys(ids: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """One 64-bit hash per run of `size` words."""
    count = len(ids) - size + 1
    keys = ids[:count].copy()
    for offset in range(1, size):
        keys *= _MULTIPLIER
        keys ^= keys >> np.uint64(29)
        keys += ids[offset : offset + count]
    return keys


def _repeats(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which runs occurred before."""
    repeats = np.ones(len(keys), dtype=bool)
    repeats[np.unique(keys, return_index=True)[1]] = False
    return repeats


def _covered(repeats: NDArray[np.bool_], size: int, lengths: NDArray[np.int64]) -> int:
    """Characters of the words in any repeated run: an upper bound of `_held` for this size and all longer ones."""
    within = np.zeros(len(lengths), dtype=bool)
    for offset in range(size):
        within[offset : offset + len(repeats)] |= repeats
    return int(lengths[within].sum())


def _held(repeats: NDArray[np.bool_], size: int, ends: NDArray[np.int64]) -> int:
    """Characters in repeated runs that do not overlap, taken from the left."""
    held, free = 0, 0
    for start in np.flatnonzero(repeats).tolist():
        if start >= free:
            held += int(ends[start + size] - ends[start])
            free = start + size
    return held
