"""Running out of memory costs one option, not the run: alone at once, with several workers at their next start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jobs import settings
from jobs.backends import device, planner
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage

QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152_064,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run on a machine that says it has an H100; what is tested is what happens around the GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "gpu", lambda share: planner.Gpu(int(share * 80 * 2**30), has_8bit=True))
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    return Run.create(Storage(str(tmp_path / "root")), "train", "")


class Trainings:
    """Trains nothing; the first `failures` attempts run out of memory."""

    def __init__(self, failures: int, error: RuntimeError | None = None) -> None:
        self.failures, self.seen = failures, []
        self.error = error or torch.OutOfMemoryError("planted")

    def __call__(self, tree: Settings) -> str:
        train = tree.train
        self.seen.append((train.backend, train.batch_size, train.gradient_accumulation, train.gradient_checkpointing))
        if len(self.seen) <= self.failures:
            raise self.error
        return "trained"


def train(run: Run, workers: int, trainings: Trainings, tables: list[str]) -> str:
    tree = settings.load(None, "train.batch_size=4 data.max_length=2048")
    folder = Path(run.storage.root).parent
    return device.train_planned(tree, folder, run, workers, tables.append, trainings)


def test_a_process_alone_takes_the_next_option_at_once(run: Run) -> None:
    trainings, tables = Trainings(failures=2), []
    assert train(run, 1, trainings, tables) == "trained"
    assert len(set(trainings.seen)) == len(tables) == 3
    assert {rows * passes for _, rows, passes, _ in trainings.seen} == {4}  # as many rows per step as before
    assert tables[-1].count("ran out of memory") == 2


def test_workers_start_again_and_all_know_what_did_not_fit(run: Run) -> None:
    first, second = Trainings(failures=1), Trainings(failures=0)
    with pytest.raises(torch.OutOfMemoryError, match="planted"):
        train(run, 2, first, [])
    with pytest.raises(torch.OutOfMemoryError, match="planted"):
        train(run, 2, Trainings(failures=1), [])  # the next start, on the next option
    assert len(run.storage.list(run.path("out-of-memory"))) == 2
    assert train(run, 2, second, []) == "trained"
    assert second.seen[0] not in first.seen


def test_a_resumed_run_does_not_try_again_what_did_not_fit(run: Run) -> None:
    train(run, 1, first := Trainings(failures=1), [])
    train(run, 1, second := Trainings(failures=0), [])
    assert second.seen[0] == first.seen[-1] != first.seen[0]


def test_what_libraries_say_of_a_full_gpu_counts_too(run: Run) -> None:
    said = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert train(run, 1, trainings := Trainings(1, said), []) == "trained"
    assert len(trainings.seen) == 2


def test_other_errors_are_not_taken_for_a_full_gpu(run: Run) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(run, 1, Trainings(1, RuntimeError("CUDA error: an illegal memory access was encountered")), [])
    assert run.storage.list(run.path("out-of-memory")) == []
