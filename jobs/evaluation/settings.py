"""The section `evaluate` of the settings."""

from __future__ import annotations

from pydantic import Field

from jobs.section import InputAddress, Section


class EvaluateSettings(Section):
    """Which models `make evaluate` compares, and on what."""

    subject: InputAddress | None = None
    """Model under test: id of a training run, folder, hub id (`org/name`), `s3://…` or `package:…`; none means the
    training run that finished last. A folder may hold an adapter."""
    against: InputAddress | None = None
    """Second model, named like the first; none means the untouched base of the subject's adapter."""
    benchmarks: tuple[str, ...] = Field(("held-out", "choices", "prompts"), min_length=1)
    """Any of `held-out`, `choices`, `prompts`, `kmmlu-cot`, `kobest`, `kmmlu`, `haerae`."""
    held_out: InputAddress | None = None
    """Rows whose loss is measured, in any form that `data.source` takes; none means the rows that the subject's run
    held out."""
    choices: InputAddress = "jobs/data/eval/choices_ko.jsonl"
    """Four-way questions; `FORMAT.md` beside the default describes the keys."""
    prompts: InputAddress = "jobs/data/eval/prompts_ko.jsonl"
    """Prompts with checkable answers, described there too."""
    harness_data: InputAddress | None = None
    """Folder with the data sets of `kobest`, `kmmlu` and `haerae` as `hf download --local-dir` lays them out, in
    subfolders `kobest_v1`, `KMMLU` and `HAE_RAE_BENCH`; none means the hub (with HF_HUB_OFFLINE=1: its local cache)."""
    max_rows: int | None = Field(None, ge=1)
    """Items per benchmark, taken at even distances; none means all."""
    max_length: int = Field(1024, ge=16, le=1_048_576)
    """Longest held-out row in tokens. Longer conversations are left out and counted, longer texts cut into pieces."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Rows per forward pass; fewer where the logits of so many would not fit."""
    max_new_tokens: int = Field(128, ge=1, le=8192)
    """Length limit of a generated answer, in tokens. An answer that reaches it counts as cut off."""
    resamples: int = Field(10_000, ge=100, le=1_000_000)
    """Bootstrap resamples behind each confidence interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of the intervals; 1 − this is the significance level of the tests."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seed of the resampling. Nothing else is random: answers are generated greedily."""
