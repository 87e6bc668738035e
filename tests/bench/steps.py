"""Step times on the real default model: our loop against plain TRL, grouped rows against rows padded to the longest."""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs import models, settings
from jobs.backends.peft import PeftBackend
from jobs.dataset import build
from jobs.settings import Settings

_LOCAL = Path(__file__).resolve().parents[2] / "jobs/configs/local.yaml"
_ROUNDS, _STEPS = 5, 4


def step_overhead() -> tuple[float, float]:
    """Median seconds between step ends: our trainer with all its callbacks, and TRL's with none.

    Same model, arguments and rows, all of 128 tokens so that the order of rows does not matter; the two take turns.
    """
    from trl import SFTTrainer

    from jobs.training.callbacks import Checkpoints, Curve, Guard, StopOnRequest
    from jobs.training.trainer import Trainer

    tree = settings.load(_LOCAL, "data.max_length=128")
    rows = _rows(tree)
    full = [i for i, ids in enumerate(rows["input_ids"]) if len(ids) == 128]
    rows = rows.select(full[: tree.train.batch_size * _STEPS])
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(_ROUNDS):
        callbacks = [
            Guard(tree.train.max_loss_ratio),
            Curve(lambda step, steps, values: None),
            Checkpoints(lambda step, loss, folder: None),
            StopOnRequest(lambda: False),
        ]
        seconds["ours"] += _step_seconds(Trainer, tree, rows, callbacks)
        seconds["plain"] += _step_seconds(SFTTrainer, tree, rows, [])
    return statistics.median(seconds["ours"]), statistics.median(seconds["plain"])


def padding_gain() -> tuple[float, float]:
    """Useful tokens per second: rows grouped by length, and the same rows each padded to the sample's longest.

    The rows of a few grouped batches, spread evenly over all lengths, are run both ways.
    """
    import torch

    tree = settings.load(_LOCAL, "data.max_length=2048")
    rows = sorted(_rows(tree), key=lambda row: len(row["input_ids"]))
    size = tree.train.batch_size
    longest = len(rows[-1]["input_ids"])
    starts = [round(f * (len(rows) - size)) for f in (1 / 6, 1 / 2, 5 / 6)]
    model, tokenizer = PeftBackend().load(tree, models.resolve(tree.model))
    model.train()

    def tokens_per_second(width: int | None) -> float:
        tokens, started = 0, time.perf_counter()
        for start in starts:
            batch = rows[start : start + size]
            wide = width or max(len(row["input_ids"]) for row in batch)
            ids = torch.full((size, wide), tokenizer.eos_token_id)
            mask = torch.zeros((size, wide), dtype=torch.long)
            labels = torch.full((size, wide), -100)
            for i, row in enumerate(batch):
                ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
                mask[i, : len(row["input_ids"])] = 1
                labels[i, : len(row["labels"])] = torch.tensor(row["labels"])
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            tokens += sum(len(row["input_ids"]) for row in batch)
        return tokens / (time.perf_counter() - started)

    tokens_per_second(None)  # warm-up
    return tokens_per_second(None), tokens_per_second(longest)


def _rows(tree: Settings) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(tree.model))
    return build(tokenizer, tree.data).train


def _step_seconds(trainer_class: Any, tree: Settings, rows: Any, callbacks: list[Any]) -> list[float]:
    from transformers import TrainerCallback

    from jobs.training.arguments import sft_config

    ends: list[float] = []

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    backend = PeftBackend()
    model, tokenizer = backend.load(tree, models.resolve(tree.model))
    with tempfile.TemporaryDirectory() as output:
        arguments = sft_config(tree, backend, False, Path(output))
        arguments.max_steps = _STEPS
        trainer_class(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows.select(range(1)),
            processing_class=tokenizer,
            callbacks=[*callbacks, Stopwatch()],
        ).train()
    return [after - before for before, after in pairwise(ends)]
