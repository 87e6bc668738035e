"""GPUs that another process has nearly filled: what does not fit is found out, and something that does is trained.

`jobs.train` as a user starts it, with `auto`: the planner believes in an empty GPU and the first plan runs out of
memory for real. One process steps back by itself; of two, which go through Ray Train, all start again on the next
plan, which splits the model. Some three minutes each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from jobs.runs import Run, read_events
from jobs.storage import Storage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.timeout(600),
]
_LEFT_GIB = 11
"""A copy of the model needs some 13 GiB (6 of weights, 6 of adapter, gradients and moments), a half some 8.5."""
_LEFT_ALONE_GIB = 12
"""With an adapter of rank 16 and four rows of 1,024 tokens a step: some 16 GiB without checkpointing, 8 with all."""
_HOLD = """
import sys, torch
held = []
for gpu in range(torch.cuda.device_count()):
    with torch.cuda.device(gpu):
        torch.cuda.init(); torch.zeros(1, device="cuda")
        size = torch.cuda.mem_get_info()[0] - int(sys.argv[1]) * 2**30
        held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def nearly_full(left_gib: int) -> Iterator[None]:
    """All GPUs but for `left_gib` each belong to another process while this lasts."""
    command = [sys.executable, "-c", _HOLD, str(left_gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        yield
        assert other.poll() is None
        other.kill()


def trained(root: Path, settings: str, left_gib: int) -> tuple[Run, list[list[str]]]:
    """The run, and of each plan's chosen line the columns; see `planner`."""
    with nearly_full(left_gib):
        command = [sys.executable, "-m", "jobs.train", "--set", f"{settings} storage.root={root}"]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=420, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    run = Run.open(Storage(str(root)), next(r.name for r in (root / "runs").glob("train-*") if r.is_dir()))
    tables = [event.fields["table"] for event in read_events(run) if event.kind == "plan"]
    print(*tables, json.dumps(run.result(), indent=1), sep="\n\n")
    assert len(tables) > 1
    assert all("ran out of memory" in table for table in tables[1:])
    return run, [next(line.split() for line in table.splitlines() if "chosen" in line) for table in tables]


def test_one_full_gpu_recomputes_what_it_cannot_keep(wide_model: Path, tmp_path: Path) -> None:
    settings = (
        f"model.source={wide_model} lora.rank=16 data.max_length=1024 train.batch_size=4 train.max_steps=8 "
        "train.checkpoint_every_steps=4 train.learning_rate=1e-4 eval.max_rows=4 eval.batch_size=2 eval.generations=1 "
        "eval.max_new_tokens=1"
    )
    run, chosen = trained(tmp_path, settings, _LEFT_ALONE_GIB)
    needed = [float(line[7]) for line in chosen]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > _LEFT_ALONE_GIB
    assert chosen[0][3] == "0%"  # the column "recomputed"
    result = run.result()
    assert result["steps"] == 8
    assert result["eval_loss"] < result["base_loss"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_full_gpus_end_up_sharing_the_model(wide_model: Path, tmp_path: Path) -> None:
    settings = (
        f"model.source={wide_model} lora.rank=256 lora.alpha=256 data.max_length=1024 "
        "train.batch_size=1 train.gradient_checkpointing=1 train.max_steps=8 train.checkpoint_every_steps=4 "
        "train.learning_rate=1e-4 eval.max_rows=4 eval.batch_size=2 eval.generations=1 eval.max_new_tokens=1 "
        "scaling.workers=2 scaling.gpus_per_worker=1"
    )
    run, chosen = trained(tmp_path, settings, _LEFT_GIB)
    assert [line[5] for line in chosen] == ["no", "yes"]  # the column "split"
    result = run.result()
    assert result["steps"] == 8
    assert result["eval_loss"] < result["base_loss"]

    from jobs.backends.peft import PeftBackend
    from jobs.dataset import build
    from jobs.settings import load
    from jobs.training.scoring import score

    alone = load(None, settings.replace("scaling.workers=2 ", "train.backend=peft "))
    backend = PeftBackend()
    model, tokenizer = backend.load(alone, wide_model)
    backend.load_trained(model, run.storage.local_path(run.path("model")))
    held_out = build(tokenizer, alone.data).limit_held_out(4).held_out
    assert score(model, list(held_out), 2, tokenizer.pad_token_id).loss == pytest.approx(result["eval_loss"], rel=0.005)
