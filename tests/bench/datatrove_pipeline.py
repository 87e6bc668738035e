"""Corpus preparation as datatrove does it, for `tests/bench/preprocess.py`.

Its own reader, MinHash stages and writer, in one process; our cleaner as one of its steps, so that both sides clean
alike. Its Korean word tokenizer is left out (it takes longer than everything else together): shingles are 5 characters
long here as well, hashed by its xxhash. Its exact deduplication, which takes two more passes, is left out too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

from jobs.corpus.cleaning_settings import CleaningSettings
from jobs.corpus.signatures import BANDS, ENTRIES, SHINGLE_CHARACTERS
from jobs.corpus.steps import Cleaned, Cleaner


class _Clean(BaseFilter):
    name = "cleaner"

    def __init__(self) -> None:
        super().__init__()
        self._cleaner = Cleaner(CleaningSettings())

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        outcome = self._cleaner(doc.text)
        if isinstance(outcome, Cleaned):
            doc.text = outcome.text
            return True
        return False, outcome.rule


class _SyllableSignature(MinhashDedupSignature):
    def __init__(self, folder: str, config: MinhashConfig) -> None:
        with patch("datatrove.pipeline.dedup.minhash.load_word_tokenizer"):  # would ask for spaCy or Kiwi
            super().__init__(folder, config)

    def get_shingles(self, text: str) -> np.ndarray[Any, Any]:
        letters = "".join(filter(str.isalnum, text.lower()))
        runs = {letters[at : at + SHINGLE_CHARACTERS] for at in range(len(letters) - SHINGLE_CHARACTERS + 1)}
        hashes = (self._hash_func(run.encode()) for run in runs)  # xxhash 4 takes no strings
        return np.fromiter(hashes, dtype=np.uint64, count=len(runs)).reshape(-1, 1)


def prepare(source: Path, output: Path, scratch: Path) -> None:
    """From the JSONL files in `source` to Parquet in `output`."""
    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ENTRIES // BANDS)
    clean, signatures, buckets, removed = (
        str(scratch / name) for name in ("clean", "signatures", "buckets", "removed")
    )
    stages: list[tuple[list[Any], int]] = [
        ([JsonlReader(str(source)), _Clean(), JsonlWriter(clean, compression=None)], 1),
        ([JsonlReader(clean), _SyllableSignature(signatures, config)], 1),
        ([MinhashDedupBuckets(signatures, buckets, config=config)], BANDS),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([JsonlReader(clean), MinhashDedupFilter(removed), ParquetWriter(str(output), compression="zstd")], 1),
    ]
    for number, (steps, tasks) in enumerate(stages):
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=str(scratch / f"logs-{number}")).run()
