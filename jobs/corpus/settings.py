"""The settings of corpus preparation. What is held out, and for which tokenizer tokens are counted, is set elsewhere:
`data.held_out` and `model.source`, so that training takes the same."""

from __future__ import annotations

from pydantic import Field

from jobs.corpus.cleaning_settings import CleaningSettings
from jobs.section import Address, InputAddress, Section


class CorpusSettings(Section):
    """From raw text to a training set."""

    source: tuple[InputAddress, ...] = ()
    """Files, folders, globs, `file://…` or `s3://…`: plain text, JSONL, CSV, Parquet and HTML, also `.gz` and `.zst`.
    `INPUT=` sets it."""
    output: Address | None = None
    """Folder or `s3://…` that the training set is published to. `OUTPUT=` sets it."""
    text_column: str = Field("text", min_length=1)
    """Column with the text, in files whose rows are no conversations."""
    cleaning: CleaningSettings = CleaningSettings()
    """The steps that each text goes through."""
    near_duplicate_similarity: float = Field(0.75, ge=0.6, le=1)
    """Jaccard similarity of two rows' 5-syllable shingles from which on the later one is dropped. It is estimated from
    112 hashes (standard error 0.04), so that nearly all pairs at 0.85 and few at 0.65 are taken. 1 drops only rows that
    differ in nothing but case, spaces and punctuation."""
    evaluation: tuple[InputAddress, ...] = ("jobs/data/eval",)
    """Evaluation sets, as in `source`: a row that shares a run of syllables with any of their texts is dropped."""
    evaluation_overlap_syllables: int = Field(13, ge=5, le=100)
    """Length of that run, in Hangul syllables with everything else removed (GPT-3, Brown et al. 2020, appendix C, takes
    13 words; the project's own sets keep clear of its training sample by 13 syllables)."""
    shard_characters: int = Field(8_000_000, ge=1_000, le=1_000_000_000)
    """Characters of raw text per shard, the unit of work, of memory and of what a resumed run repeats. One shard of
    input gives at most one file per side of the output."""
    tokenizer_rows: int = Field(1_000, ge=1, le=1_000_000)
    """About how many rows are tokenised for the datasheet's figures, drawn by a hash of their content."""
