"""Checkpoints of a run: `checkpoints/step-000025/`, each with a manifest of checksums.

A checkpoint counts only if every file matches its manifest, so one that was cut off half-way is never resumed from,
whoever wrote it (`Storage.publish_tree` in a single process, Ray Train's upload with several workers).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import IntegrityError
from jobs.manifest import verify_manifest
from jobs.runs import Event, EventLog, Run, read_events

_NAME = re.compile(r"step-(\d{6,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on this machine's disk."""

    step: int
    folder: Path

    @property
    def is_last(self) -> bool:
        """Whether training was complete when it was written, so that there is nothing to go on with."""
        state = json.loads((self.folder / "trainer_state.json").read_text(encoding="utf-8"))
        return bool(state["global_step"] >= state["max_steps"])


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` optimiser steps; sorts by step."""
    return f"step-{step:06d}"


def keep(run: Run, step: int, loss: float, folder: Path, count: int) -> None:
    """Publish `folder` as the checkpoint after `step`, and delete those that are neither newest nor the best `count`.

    For the one process that trains the run alone; with several, Ray Train does it.
    """
    run.publish(folder, "checkpoints", name_of(step))
    known = scores(read_events(run)) | {step: loss}
    for other in surplus(steps(run), known, count):
        run.storage.delete_tree(run.path("checkpoints", name_of(other)))


def gather_random_states(folder: Path, rank: int, world_size: int) -> None:
    """Bring every rank's `rng_state_<rank>.pth` into rank 0's folder, so that one manifest covers the checkpoint."""
    if world_size == 1:
        return
    import torch

    mine = (folder / f"rng_state_{rank}.pth").read_bytes()
    states: list[bytes | None] = [None] * world_size
    torch.distributed.all_gather_object(states, mine)
    if rank == 0:
        for other, state in enumerate(states):
            assert state is not None
            (folder / f"rng_state_{other}.pth").write_bytes(state)


def newest(run: Run, scratch: Path) -> Checkpoint | None:
    """The newest complete checkpoint, fetched into `scratch` from remote storage; None if there is none."""
    candidates = (fetch(run, step, scratch) for step in reversed(steps(run)))
    return next((checkpoint for checkpoint in candidates if checkpoint), None)


def best(run: Run, events: EventLog, scratch: Path) -> Checkpoint | None:
    """The kept checkpoint with the lowest held-out loss on record; None if none was scored."""
    kept = set(steps(run))
    scored = {step: loss for step, loss in scores(events.read()).items() if step in kept}
    candidates = (fetch(run, step, scratch) for step in sorted(scored, key=lambda s: (scored[s], s)))
    return next((checkpoint for checkpoint in candidates if checkpoint), None)


def fetch(run: Run, step: int, scratch: Path) -> Checkpoint | None:
    """The checkpoint after `step`, fetched into `scratch` from remote storage; None if it is not complete."""
    relative = run.path("checkpoints", name_of(step))
    try:
        if run.storage.is_local:
            folder = run.storage.local_path(relative)
        else:
            folder = scratch / name_of(step)
            run.storage.download_tree(relative, folder)
        verify_manifest(folder)
    except IntegrityError as error:
        _log.warning("checkpoint passed over: %s", error)
        return None
    return Checkpoint(step, folder)


def scores(events: Iterable[Event]) -> dict[int, float]:
    """Held-out loss by step, of every checkpoint on record that was scored."""
    return {
        int(event.fields["step"]): float(event.fields["eval_loss"])
        for event in events
        if event.kind == "checkpoint" and event.fields["eval_loss"] is not None
    }


def steps(run: Run) -> list[int]:
    """Steps of all checkpoint folders, complete or not, ascending."""
    matches = (_NAME.fullmatch(name) for name in run.storage.list(run.path("checkpoints")))
    return sorted(int(match.group(1)) for match in matches if match)


def surplus(present: list[int], scored: dict[int, float], keep: int) -> list[int]:
    """Which of the `present` steps to delete so that the newest and the best `keep` remain."""
    ranked = sorted(present, key=lambda s: (scored.get(s, float("inf")), -s))
    kept = {max(present), *ranked[:keep]} if present else set()
    return [step for step in present if step not in kept]
