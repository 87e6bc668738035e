"""The figures of a dry run against arithmetic done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny

from jobs.dataset import Prepared
from jobs.settings import Settings, load
from jobs.training import plan

ROWS = 45
LENGTHS = [10 + number for number in range(ROWS)]  # 10 … 54, 1,440 tokens in all
VOCABULARY, HIDDEN, MIDDLE, LAYERS, KEY_VALUE = 600, 32, 64, 2, 16
BASE = 2 * VOCABULARY * HIDDEN + LAYERS * (
    2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEY_VALUE + 3 * HIDDEN * MIDDLE + 2 * HIDDEN
) + HIDDEN  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.model(VOCABULARY).save_pretrained(path)
    return path


def rows(lengths: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": [[1] * n for n in lengths], "labels": [[1] * n for n in lengths]})


def values(folder: Path, overrides: str) -> dict[str, Any]:
    tree: Settings = load(None, f"model.source={folder} model.dtype=float32 train.max_steps=null {overrides}")
    data = Prepared(rows(LENGTHS), rows([20] * 5), False, [], "", {}, "⟦preview⟧")
    return plan.make(tree, folder, data, "somewhere/runs/train-<time>").values()


@pytest.mark.parametrize(
    ("overrides", "rows_per_step", "steps", "warmup", "checkpoints"),
    [
        ("train.batch_size=8 train.epochs=1", 8, 6, 1, 1),  # ⌈45 / 8⌉, the last step has 5 rows
        ("train.batch_size=8 train.epochs=2", 8, 12, 1, 1),  # each epoch ends with a short step
        ("train.batch_size=8 train.epochs=3 train.warmup=4", 8, 18, 4, 1),
        ("train.batch_size=4 train.gradient_accumulation=2 train.epochs=1", 8, 6, 1, 1),
        ("train.batch_size=5 train.epochs=10 train.checkpoint_every_steps=20", 5, 90, 5, 5),
        ("train.batch_size=8 train.max_steps=7 train.checkpoint_every_steps=3", 8, 7, 1, 3),
        ("train.batch_size=8 train.epochs=1 scaling.workers=2", 16, 3, 1, 1),
    ],
)
def test_steps(folder: Path, overrides: str, rows_per_step: int, steps: int, warmup: int, checkpoints: int) -> None:
    found = values(folder, f"train.warmup=0.05 train.checkpoint_every_steps=25 {overrides}")

    assert found["rows_per_step"] == rows_per_step
    assert found["steps"] == steps
    assert found["warmup_steps"] == warmup
    assert found["checkpoints"] == checkpoints


def test_tokens_and_rows(folder: Path) -> None:
    found = values(folder, "train.batch_size=9 train.epochs=2")

    assert (found["rows"], found["held_out_rows"], found["longest_row_tokens"]) == (45, 5, 54)
    assert found["tokens_per_epoch"] == 1440
    assert found["tokens_in_total"] == 2880


def test_parameters(folder: Path) -> None:
    found = values(folder, "lora.rank=4 lora.target_modules=[q_proj,v_proj]")

    assert found["base_parameters"] == BASE
    assert found["trained_parameters"] == LAYERS * 4 * ((HIDDEN + HIDDEN) + (HIDDEN + KEY_VALUE))
    assert values(folder, "lora.method=full")["trained_parameters"] == BASE


def test_memory_counts_weights_states_and_activations(folder: Path) -> None:
    found = values(folder, "lora.method=full train.batch_size=2")

    # float32 weights; 16 bytes of weight, gradient and two moments for each trained one; 34 activations of twice the
    # two bytes that they have in 16 bit; one GiB of libraries.
    assert found["memory_bytes_per_worker"] == BASE * 4 + BASE * 16 + 2 * 54 * HIDDEN * LAYERS * 68 + 2**30


def test_plan_shows_sources_and_the_first_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Prepared(rows(LENGTHS), rows([20] * 5), False, [], "", {}, "⟦preview⟧")
    plan.make(load(None, f"model.source={folder}"), folder, data, "somewhere").show()

    out = capsys.readouterr().out
    assert "batch_size × gradient_accumulation × workers" in out
    assert out.endswith("⟦preview⟧\n")
