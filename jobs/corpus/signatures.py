"""What is kept of each row to find its duplicates: a MinHash signature and the keys under which like rows meet.

MinHash (Broder 1997) by the library rensa: the share of equal entries of two signatures estimates the Jaccard
similarity of the rows' sets of 5-syllable shingles. Bands of 8 entries, hashed to one key each, are the
locality-sensitive index (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4): two rows at similarity s share
a key with probability 1 - (1 - s^8)^14, which is 0.99 at 0.85 and 0.05 at 0.5. 14 bands of 8 are also what FineWeb took
(Penedo et al. 2024). Signatures are cut to 16 bits an entry (Li and König 2010), which two different entries share once
in 65,536 times. A row takes 224 bytes of signature and 180 of keys, on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jobs.corpus import grams

SHINGLE_CHARACTERS = 5
BANDS = 14
_BAND_ENTRIES = 8
ENTRIES = BANDS * _BAND_ENTRIES
_SEED = 42

KEY = np.dtype([("key", np.uint64), ("row", np.uint32)])


@dataclass(frozen=True)
class Signatures:
    """Of the rows of one shard.

    `entries` has shape [rows, ENTRIES], uint16. `keys` has shape [1 + BANDS, rows], dtype KEY, each line sorted: line 0
    is a hash of the whole row (letters and digits alone, lower case), the others are the bands.
    """

    entries: NDArray[np.uint16]
    keys: NDArray[np.void]


def sign(texts: Sequence[str]) -> Signatures:
    """Signatures of one shard's rows, in their order."""
    entries, keys = [np.zeros((0, ENTRIES), np.uint16)], [np.zeros((1 + BANDS, 0), np.uint64)]
    for batch in grams.batches(texts):
        codes = grams.letters(batch)
        minhash = _minhash(grams.windows(codes, SHINGLE_CHARACTERS, partial=True))
        entries.append(minhash.astype(np.uint16))
        keys.append(np.vstack([_whole(codes), _bands(minhash)]))
    return Signatures(np.concatenate(entries), _sorted(np.concatenate(keys, axis=1)))


def _minhash(shingles: grams.Ragged) -> NDArray[np.uint32]:
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles.flat, shingles.offsets, ENTRIES, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(shingles.lengths), ENTRIES)


def _whole(codes: grams.Ragged) -> NDArray[np.uint64]:
    hashes = (
        hashlib.blake2b(codes.flat[start:end].tobytes(), digest_size=8).digest()
        for start, end in pairwise(codes.offsets)
    )
    return np.frombuffer(b"".join(hashes), dtype="<u8")


def _bands(minhash: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Shape [BANDS, rows]."""
    entries = grams.Ragged(minhash.reshape(-1), np.full(len(minhash) * BANDS, _BAND_ENTRIES))
    return grams.windows(entries, _BAND_ENTRIES, partial=False).flat.reshape(len(minhash), BANDS).T


def _sorted(keys: NDArray[np.uint64]) -> NDArray[np.void]:
    order = np.argsort(keys, axis=1, kind="stable")
    result = np.empty(keys.shape, dtype=KEY)
    result["key"] = np.take_along_axis(keys, order, axis=1)
    result["row"] = order
    return result
