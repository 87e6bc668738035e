"""One trial, in the process that Ray Tune gave it: the third way to start the training loop, beside `training.launch`.

The trial trains in this one process (no TorchTrainer within, whose placement groups a stopped trial would leave
behind), in a run directory of its own below that of the study, so that a trial that was cut off goes on from its newest
checkpoint.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

from jobs.errors import Diverged, HaetsalError
from jobs.runs import Run, read_events
from jobs.settings import from_tree
from jobs.storage import Storage
from jobs.training import checkpoints
from jobs.training.loop import Worker, loop
from jobs.tuning import space
from jobs.tuning.record import Outcome, Report, fields_of, progress

LOSS = "best_eval_loss"
"""What is minimised: the lowest held-out loss of the trial so far, because its best checkpoint is what a run keeps."""
PROGRESS = "progress"
_UNWIND_S = "60"
"""Longest wait for a stopped trial's thread before the process takes the next trial; Ray's 2 s fail on a busy disk."""
_NO_ROOM = ("can't allocate memory", "not enough memory")
"""How PyTorch's allocator for the CPU says it (c10/core/impl/alloc_cpu.cpp); CUDA has an exception type."""


def run_of(study: Run, number: int) -> Run:
    """The run directory of one trial."""
    return Run(study.storage, f"{study.id}/trials/{number:04d}")


def trial(config: dict[str, Any]) -> dict[str, Any]:
    """Train with `config["draw"]` under `config["settings"]`; reports each evaluation and returns how it ended."""
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _UNWIND_S
    _clear_memory()  # a trial that was stopped left this function before its own turn to do so
    ending = _train(config)
    _clear_memory()
    return ending


def _train(config: dict[str, Any]) -> dict[str, Any]:
    from ray import tune

    base = from_tree(config["settings"], "settings of the study")
    run = run_of(Run(Storage(config["root"]), config["run"]), config["number"])
    tree = space.trial_settings(base, config["draw"])

    def report(metrics: dict[str, float], folder: Path) -> None:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        now = Report(int(metrics["step"]), state["max_steps"], metrics["eval_loss"])
        checkpoints.keep(run, now.step, now.eval_loss, folder, tree.train.keep_checkpoints)
        best = min(_best_loss(run), now.eval_loss)
        tune.report(fields_of(now) | {LOSS: best, PROGRESS: progress(now, tree.tune.evaluations)})

    try:
        loop(tree, run, Worker(0, 1, report, is_trial=True))
    except (HaetsalError, MemoryError, RuntimeError) as error:
        outcome = _outcome(error)
        if outcome is None:
            raise
        return {LOSS: float("inf"), "outcome": outcome, "reason": " ".join(str(error).split())[:500]}
    return {LOSS: _best_loss(run), "outcome": "completed", "reason": None}


def _clear_memory() -> None:
    """Let go of a trial that is over: its model is held by reference cycles, its GPU memory by a cache."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _best_loss(run: Run) -> float:
    return min(checkpoints.scores(read_events(run)).values(), default=float("inf"))


def _outcome(error: Exception) -> Outcome | None:
    import torch

    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, HaetsalError):
        return "failed"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in _NO_ROOM):
        return "out_of_memory"
    return None
