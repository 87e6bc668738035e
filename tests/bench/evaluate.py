"""Figures of `make evaluate`: python -m tests.bench.evaluate [speed] [statistics]

`speed`: processor time of scoring the shipped questions with their beginnings shared, against row by row, interleaved.
`statistics`: how often the intervals hold the truth, and how often the tests see a difference where there is none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from jobs.evaluation.benchmark import Item, Metric
from jobs.evaluation.candidate import Candidate
from jobs.evaluation.choices import choices, encode
from jobs.evaluation.likelihood import of_groups, of_rows
from jobs.evaluation.settings import EvaluateSettings
from jobs.evaluation.statistics import Resampling, difference, estimate, mcnemar
from jobs.settings import ModelSettings
from jobs.trained import Weights

QUESTIONS, ROUNDS, DRAWS, ITEMS = 6, 2, 2000, 60
RATIO = Metric("loss", "loss", "nats", "tokens")


def speed() -> None:
    """The default model on a few questions of each subject."""
    from jobs import models

    source = ModelSettings()
    loaded = Candidate(source.source, Weights(source, models.resolve(source), None)).load()
    model, tokenizer = loaded.model, loaded.tokenizer
    benchmark = choices(EvaluateSettings(max_rows=QUESTIONS))
    groups = [encode(tokenizer, *benchmark.lay_out(question)) for question in benchmark.questions]
    rows = [
        {"input_ids": row.input_ids, "labels": [-100] * row.start + row.input_ids[row.start :]}
        for group in groups
        for row in group
    ]
    seconds: dict[str, list[float]] = {"shared": [], "row by row": []}
    for _ in range(ROUNDS):
        seconds["shared"].append(_cpu_s(lambda: of_groups(model, groups, 16, tokenizer.pad_token_id, lambda *_: None)))
        seconds["row by row"].append(_cpu_s(lambda: of_rows(model, rows, 16, tokenizer.pad_token_id, lambda *_: None)))
    best = {name: min(found) for name, found in seconds.items()}
    print(f"shared beginning: {best['row by row'] / best['shared']:.1f} × less processor time than row by row")
    print(f"processor time a question: {best['shared'] / len(groups):.2f} s")


def statistics() -> None:
    """95 % intervals and tests at 5 % on simulated models whose truth is known."""
    rng, truth = np.random.default_rng(0), float(np.exp(0.125))
    how = Resampling(1000, 0.95, 1)
    held = rank_low = exact_low = missed = 0
    for _ in range(DRAWS):
        tokens = rng.integers(20, 200, ITEMS).astype(float)
        found = estimate(RATIO, _rows(tokens * rng.lognormal(0, 0.5, ITEMS), tokens), how)
        held += found.low <= truth <= found.high
        hard = rng.lognormal(0, 0.5, ITEMS)
        ours, theirs = (_rows(hard * rng.lognormal(0, 0.1, ITEMS), np.ones(ITEMS)) for _ in range(2))
        gap = difference(RATIO, ours, theirs, how)
        rank_low += gap.p_value < 0.05
        missed += not gap.low <= 0 <= gap.high
        right = [(rng.random(180) < 0.25).astype(float) for _ in range(2)]
        exact_low += mcnemar(*right) < 0.05
    print(f"95 % interval of a ratio, {ITEMS} items: holds the truth in {held / DRAWS:.1%} of {DRAWS:,} draws")
    print(f"95 % interval of a difference that is none: leaves zero out in {missed / DRAWS:.1%}")
    print(f"false positives at 5 %: Wilcoxon {rank_low / DRAWS:.1%}, McNemar (180 questions) {exact_low / DRAWS:.1%}")


def _rows(nats: np.ndarray, tokens: np.ndarray) -> list[Item]:
    return [Item(str(i), "", {"nats": n, "tokens": t}) for i, (n, t) in enumerate(zip(nats, tokens, strict=True))]


def _cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    for part in sys.argv[1:] or ["speed", "statistics"]:
        {"speed": speed, "statistics": statistics}[part]()
