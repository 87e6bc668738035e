"""What a study leaves of its trials: the best one's values and adapter, and nothing of the others but their events."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from jobs.manifest import MANIFEST
from jobs.runs import Run
from jobs.training import checkpoints
from jobs.tuning import record, space
from jobs.tuning.record import Trial
from jobs.tuning.trial import run_of

BEST = "best.yaml"

_TRAINING_STATE = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state*.pth",
    "trainer_state.json",
    "training_args.bin",
    MANIFEST,
)
"""Files of a checkpoint that only a training that goes on needs."""


def keep_best(run: Run, found: Mapping[int, Trial], just_ended: int) -> None:
    """Delete the checkpoints of the trial that just ended, or, if it is the best so far, of the one that was."""
    before = record.best({number: trial for number, trial in found.items() if number != just_ended})
    if record.best(found) is found[just_ended]:
        discard_checkpoints(run, [before.number] if before else [])
    else:
        discard_checkpoints(run, [just_ended])


def discard_checkpoints(run: Run, numbers: Iterable[int]) -> None:
    """Delete all checkpoints of these trials."""
    for number in numbers:
        run.storage.delete_tree(run_of(run, number).path("checkpoints"))


def publish(run: Run, trial: Trial) -> None:
    """Write `best.yaml`, and as `model/` what the best checkpoint of `trial` holds for use (adapter and tokenizer)."""
    assert trial.best is not None
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        folder = Path(scratch) / "model"
        name = checkpoints.name_of(trial.best.step)
        run.storage.fetch_tree(run_of(run, trial.number).path("checkpoints", name), folder)
        for pattern in _TRAINING_STATE:
            for file in folder.glob(pattern):
                file.unlink()
        run.publish(folder, "model")
    run.storage.write(run.path(BEST), overlay(run, trial).encode())


def overlay(run: Run, trial: Trial) -> str:
    """The values of `trial` as a settings file for `make train SET=@best.yaml`."""
    assert trial.best is not None
    values = yaml.safe_dump(space.overlay(trial.parameters), sort_keys=False, allow_unicode=True)
    return (
        f"# {run.id}, trial {trial.number}: held-out loss {trial.loss:.4f} after {trial.best.step} of "
        f"{trial.best.steps} steps.\n{values}"
    )
