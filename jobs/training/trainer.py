"""TRL's SFTTrainer with three changes: rows of like length share a batch in a reproducible order, the held-out loss is
the token-weighted one of `scoring.py`, and of a model split over the workers only the adapter is saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerControl, TrainerState
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTTrainer

from jobs.backends import sharding
from jobs.training.feed import Feed
from jobs.training.scoring import IGNORED, Row, Score, score


class LengthGroupedOrder(Sampler[int]):
    """Row order of one epoch: shuffled, then sorted by length within blocks of 50 batches.

    A function of seed and epoch alone, so that a resumed run sees the rows that the interrupted one had left.
    transformers' own sampler draws from the global generator, whose state at that moment a resumed run lacks.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class Trainer(SFTTrainer):  # type: ignore[misc]  # trl ships no types
    """See the module's docstring."""

    control: TrainerControl

    def __init__(self, *, feed: Feed | None = None, **options: Any) -> None:
        self._feed = feed or Feed()
        super().__init__(**options)

    def create_accelerator_and_postprocess(self) -> None:
        """Called while the trainer is made."""
        super().create_accelerator_and_postprocess()
        if self.args.bf16 and self.is_fsdp_enabled:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = sharding.precision_policy()

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Sized = train_dataset if train_dataset is not None else self.train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]  # type: ignore[index]
        rows_per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedOrder(lengths, rows_per_step, self.args.seed)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Called before each step."""
        found: tuple[list[Any], Any] = super().get_batch_samples(
            self._feed.watched(epoch_iterator), num_batches, device
        )
        return found

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        metrics = {"eval_loss": self.held_out().loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def held_out(self) -> Score:
        """Score of the model, as it is now, on all held-out rows; every rank scores its share."""
        rank, world = self.args.process_index, self.args.world_size
        share: list[Row] = [self.eval_dataset[i] for i in range(rank, len(self.eval_dataset), world)]
        if len(share) * world < len(self.eval_dataset):  # a split model is asked as often by every worker
            share.append({"input_ids": self.eval_dataset[0]["input_ids"][:2], "labels": [IGNORED, IGNORED]})
        model = self.accelerator.unwrap_model(self.model)
        mine = score(model, share, self.args.eval_batch_size, self.processing_class.pad_token_id)
        if world == 1:
            return mine
        sums = torch.tensor([mine.nll, mine.tokens], dtype=torch.float64, device=self.args.device)
        torch.distributed.all_reduce(sums)
        return Score(float(sums[0]), int(sums[1]))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in transformers, which would gather the whole base model of a split one for each checkpoint."""
        if self.is_fsdp_enabled:
            sharding.save(self.model, Path(output_dir or self.args.output_dir))
        else:
            super().save_model(output_dir, _internal_call)

    def adopt_state(self, checkpoint: Path) -> None:
        """Take over step, epoch and history of a checkpoint without training on."""
        if self.is_fsdp_enabled:  # `train()` would have split the model
            self._prepare_for_training(max_steps=1, train_dataloader=None, resume_from_checkpoint=None)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
