"""Two GPUs that another process has nearly filled: what does not fit is found out, and the model is split.

`jobs.train` as a user starts it, through Ray Train, with `auto`: the planner believes in an empty GPU, the first plan
runs out of memory for real, all workers start again on the next one. Some three minutes.
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
import tiny
import torch

from jobs.runs import Run, read_events
from jobs.storage import Storage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
    pytest.mark.timeout(600),
]
_LEFT_GIB = 11
"""A copy of the model below needs some 13 GiB (6 of weights, 6 of adapter, gradients and moments), a half some 8.5."""
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


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half the layers of a 7B model, with random weights and a tokenizer of 600 tokens."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = tmp_path_factory.mktemp("wide-model")
    tokenizer = tiny.tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=14,
        num_attention_heads=28,
        num_key_value_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def test_two_full_gpus_end_up_sharing_the_model(wide_model: Path, tmp_path: Path) -> None:
    settings = (
        f"model.source={wide_model} storage.root={tmp_path} lora.rank=256 lora.alpha=256 data.max_length=1024 "
        "train.batch_size=1 train.gradient_checkpointing=1 train.max_steps=8 train.checkpoint_every_steps=4 "
        "train.learning_rate=1e-4 eval.max_rows=4 eval.batch_size=2 eval.generations=1 eval.max_new_tokens=1 "
        "scaling.workers=2 scaling.gpus_per_worker=1"
    )
    with nearly_full(_LEFT_GIB):
        command = [sys.executable, "-m", "jobs.train", "--set", settings]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=420, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    run = Run.open(Storage(str(tmp_path)), next(r.name for r in (tmp_path / "runs").glob("train-*") if r.is_dir()))
    tables = [event.fields["table"] for event in read_events(run) if event.kind == "plan"]
    print(*tables, json.dumps(run.result(), indent=1), sep="\n\n")
    assert len(tables) == 2
    assert "ran out of memory" in tables[1]
    chosen = [next(line.split() for line in table.splitlines() if "chosen" in line) for table in tables]
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
