"""A model split over two workers learns what a whole one learns, survives a failure, and leaves an ordinary adapter."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import REPOSITORY, Command, overrides
from safetensors.torch import load_file

from jobs.runs import Run, read_events
from jobs.storage import Storage

pytestmark = [
    pytest.mark.usefixtures("untracked"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu has the same on GPUs"),
]


def losses(run: Run) -> dict[int, float]:
    points = [event.fields for event in read_events(run) if event.kind == "metrics"]
    return {p["step"]: p["values"]["loss"] for p in points if "loss" in p["values"]}


@pytest.mark.long
def test_a_split_model_trains_fails_resumes_and_publishes_as_a_whole_one(
    command: Command, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    whole = command.train(tmp_path / "whole", train__batch_size=8, train__max_steps=4, train__checkpoint_every_steps=2)
    assert whole.exit_code == 0, whole.err
    values: dict[str, object] = {
        "train.max_steps": 4,
        "train.checkpoint_every_steps": 2,
    }  # all before the epoch's last, smaller step
    values |= {"scaling.workers": 2, "scaling.shard": "on"}  # 2 x 4 rows a step
    set_ = overrides(tiny_model, tiny_data, tmp_path / "split", values)
    run = Run.create(Storage(str(tmp_path / "split")), "train", "")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command_line = [sys.executable, str(Path(__file__).with_name("sharded_worker.py"))]
    workers = [
        subprocess.Popen(
            [*command_line, str(rank), port, run.id, set_],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TRANSFORMERS_VERBOSITY": "error"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=270)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)

    kinds = [event.kind for event in read_events(run)]
    assert kinds.count("config") == 2, "it never failed, so it never resumed"
    checkpoint = run.storage.local_path(run.path("checkpoints", "step-000002"))
    assert (checkpoint / "pytorch_model_fsdp.bin").stat().st_size < 200_000  # the adapter; the base is ten times that
    expected, found = losses(whole.run), losses(run)
    assert found.keys() == expected.keys() == set(range(1, 5))
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-3)
    assert run.result()["eval_loss"] == pytest.approx(whole.run.result()["eval_loss"], rel=1e-4)
    assert run.result()["base_loss"] == pytest.approx(whole.run.result()["base_loss"], rel=1e-6)
    assert run.result()["held_out_tokens"] == whole.run.result()["held_out_tokens"]

    files = [r.storage.local_path(r.path("model", "adapter_model.safetensors")) for r in (whole.run, run)]
    theirs, ours = (load_file(file) for file in files)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0.02, atol=2e-3)
    configs = [json.loads(file.with_name("adapter_config.json").read_text()) for file in files]
    assert configs[0]["r"] == configs[1]["r"]
