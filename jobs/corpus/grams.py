"""Runs of characters as 64-bit hashes, for many texts at once.

A batch of texts is one array of code points (uint32, all texts end to end) with the number of code points of each;
its runs are one array of hashes (uint64), laid out likewise.
Everything is arithmetic on whole arrays: in a Python loop over characters this would cost more than all cleaning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BATCH_CHARACTERS = 500_000
"""Characters per batch: some 20 MB of arrays."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd: the usual multiplier of Fibonacci hashing."""
_BEHIND_LETTERS = 0x323B0
"""Unicode has no letter behind this, the end of Hanja extension H."""


@dataclass(frozen=True)
class Ragged:
    """Numbers of several texts: `flat` holds them end to end, `lengths` how many each text has."""

    flat: NDArray[Any]
    lengths: NDArray[np.int64]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each text begins in `flat`, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.lengths)])


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Neighbouring texts up to half a million characters, or one that is longer."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def letters(texts: Sequence[str]) -> Ragged:
    """Letters and digits in lower case, everything else removed."""
    return _translated(texts, _letter_table())


def syllables(texts: Sequence[str]) -> Ragged:
    """Hangul syllables alone."""
    return _translated(texts, _syllable_table())


def windows(codes: Ragged, size: int, *, partial: bool) -> Ragged:
    """Hash of each run of `size` code points.

    With `partial` a text also gives its last runs, which are shorter, so that a text below `size` has some as well.
    """
    rows = len(codes.lengths)
    # Blanks behind each text keep runs from reaching into the next one.
    at = np.arange(len(codes.flat)) + np.repeat(np.arange(rows) * (size - 1), codes.lengths)
    padded = np.zeros(len(codes.flat) + rows * (size - 1) + 1, dtype=np.uint64)
    padded[at] = codes.flat
    count = len(padded) - size + 1
    hashes = np.zeros(max(count, 0), dtype=np.uint64)
    for shift in range(size):
        hashes *= _MULTIPLIER
        hashes += padded[shift : shift + count]
    hashes = _mixed(hashes[at])
    if partial:
        return Ragged(hashes, codes.lengths)
    ends = np.repeat(codes.offsets[1:], codes.lengths)
    whole = np.arange(len(codes.flat)) + size <= ends
    return Ragged(hashes[whole], np.maximum(codes.lengths - size + 1, 0))


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of MurmurHash3 (Appleby 2011): each input bit changes half of the output bits."""
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    return hashes


def _translated(texts: Sequence[str], table: NDArray[np.uint32]) -> Ragged:
    flat = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    flat = table[flat]
    kept = flat != 0
    before = np.concatenate([[0], np.cumsum(kept)])
    ends = np.cumsum(lengths)
    return Ragged(flat[kept], before[ends] - before[ends - lengths])


@cache
def _letter_table() -> NDArray[np.uint32]:
    """What each code point becomes, 0 for nothing."""
    table = np.zeros(sys.maxunicode + 1, dtype=np.uint32)
    table[:_BEHIND_LETTERS] = [
        ord(character.lower()[0]) if character.isalnum() else 0 for character in map(chr, range(_BEHIND_LETTERS))
    ]
    return table


@cache
def _syllable_table() -> NDArray[np.uint32]:
    table = np.zeros(sys.maxunicode + 1, dtype=np.uint32)
    table[ord("가") : ord("힣") + 1] = range(ord("가"), ord("힣") + 1)
    return table
