"""Training speed on one CUDA device, side by side: `python -m tests.bench.gpu [--model 7b] [--only NAME ...]`.

Every line runs in a process of its own on the same random weights and rows: speed does not depend on values. `dense`
rows are full (no padding anywhere); `korean` rows have the lengths of the shipped sample, in tokens of Qwen's tokenizer
at its measured 3.25 bytes per token, plus 10 tokens of chat template a message. `useful` tokens are those of rows,
never padding. The MFU column assumes an H100 or H200.
The loop measured is jobs.training's trainer and arguments with a backend, below storage and tracking.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
_DIMENSIONS = {
    "1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "layers": 28,
        "heads": 12,
        "kv_heads": 2,
        "vocab": 151_936,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "vocab": 152_064,
    },
}
_PEAK_FLOPS = 989e12
"""Dense bf16 of an H100/H200 SXM by its data sheet; MFU counts 4 FLOP per parameter and token against it."""
_BYTES_PER_TOKEN = 3.25
_TEMPLATE_TOKENS = 10
_LENGTH = 2048
_BATCH = 4


@dataclass(frozen=True)
class Line:
    """One row of the table: overrides of the settings, or the seed's own loop."""

    overrides: str
    rows: str = "dense"
    seed_loop: bool = False
    steps: int = 14


_COMMON = f"lora.rank=16 train.batch_size={_BATCH} data.max_length={_LENGTH} train.learning_rate=1e-4"
LINES = {
    "seed-loop": Line(
        "train.backend=unsloth model.quantization=4bit train.gradient_checkpointing=1 lora.rank=64 lora.dropout=0.1 "
        "lora.rank_stabilized=true lora.target_modules=[q_proj,k_proj,v_proj,o_proj]",
        rows="korean",
        seed_loop=True,
    ),
    "peft-4bit-ckpt": Line("train.backend=peft model.quantization=4bit train.gradient_checkpointing=1"),
    "peft-bf16-ckpt": Line("train.backend=peft train.gradient_checkpointing=1"),
    "unsloth-4bit-ckpt": Line("train.backend=unsloth model.quantization=4bit train.gradient_checkpointing=1"),
    "unsloth-bf16-ckpt": Line("train.backend=unsloth train.gradient_checkpointing=1"),
    "unsloth-bf16": Line("train.backend=unsloth"),
    "compiled-bf16": Line("train.backend=compiled"),
    "compiled-8bit": Line("train.backend=compiled model.quantization=8bit"),
    "compiled-8bit-half-ckpt": Line("train.backend=compiled model.quantization=8bit train.gradient_checkpointing=0.5"),
    "unsloth-4bit-korean": Line(
        "train.backend=unsloth model.quantization=4bit train.gradient_checkpointing=1", rows="korean"
    ),
    "compiled-8bit-korean": Line("train.backend=compiled model.quantization=8bit", rows="korean"),
}
SHARDED = {
    f"{backend}-bf16-sharded": Line(f"train.backend={backend} scaling.workers=2 scaling.shard=on")
    for backend in ("peft", "compiled")
}
"""The model split over several GPUs; for `tests.bench.ray_gpu`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--model", choices=_DIMENSIONS, default="7b")
    parser.add_argument("--folder", type=Path, default=Path("output/bench-model"), help="where the weights are kept")
    parser.add_argument("--out", type=Path, default=Path("output/bench-gpu.jsonl"), help="one JSON line per result")
    parser.add_argument("--only", nargs="*", choices=LINES, default=list(LINES))
    parser.add_argument("--measure", choices=LINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("bench-gpu needs a CUDA device; this machine has none", file=sys.stderr)
        return 3
    folder = arguments.folder / arguments.model
    if arguments.measure:
        print("RESULT " + json.dumps(measure(arguments.measure, folder)))
        return 0
    if not (folder / "config.json").is_file():
        make_model(folder, arguments.model)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for name in arguments.only:
        command = [
            sys.executable,
            "-m",
            "tests.bench.gpu",
            "--model",
            arguments.model,
            "--folder",
            str(arguments.folder),
        ]
        done = subprocess.run([*command, "--measure", name], capture_output=True, text=True, check=False)
        found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        result = json.loads(found[-1][7:]) if found else {"name": name, "failed": done.stderr[-3000:]}
        print(json.dumps(result)[:1500], flush=True)
        results.append(result)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    print(table(results))
    return 0 if all("failed" not in r for r in results) else 4


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Train `LINES[name]` and return its figures; the first steps, which compile, are start-up."""
    from jobs.backends import choose
    from jobs.settings import load

    line = (LINES | SHARDED)[name]
    packing = "on" if line.rows == "korean" and "compiled" in line.overrides else "off"
    settings = load(None, f"{_COMMON} data.packing={packing} train.max_steps={line.steps} {line.overrides}")
    backend = choose(settings)
    backend.prepare(settings)
    import torch
    from transformers import TrainerCallback

    imported = time.perf_counter() - STARTED
    model, tokenizer = backend.load(settings, folder)
    loaded = time.perf_counter() - STARTED
    rows = ROWS[line.rows]()
    marks: list[float] = []
    losses: list[float] = []

    def mark() -> None:
        torch.cuda.synchronize()
        marks.append(time.perf_counter() - STARTED)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            mark()

        def on_log(self, *_args: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    if line.seed_loop:
        seed_loop(model, rows, line.steps, mark)
    else:
        from datasets import Dataset

        from jobs.training.arguments import sft_config
        from jobs.training.trainer import Trainer

        data = Dataset.from_list(rows)
        arguments = sft_config(settings, backend, packing == "on", folder.parent / "scratch")
        arguments.eval_strategy, arguments.save_strategy = "no", "no"
        trainer = Trainer(
            model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()]
        )
        trainer.train()
    warm = len(marks) // 3
    seconds = (marks[-1] - marks[warm]) / (len(marks) - 1 - warm)
    # Packed rows are full but for a few per cent, dense ones to the last token; unpacked ones are as long as they are.
    useful = _BATCH * (sum(len(r["input_ids"]) for r in rows) / len(rows))
    if packing == "on":
        useful = sum(len(r["input_ids"]) for r in rows) / len(trainer.train_dataset) * _BATCH
    parameters = sum(multiplied_parameters(folder).values())
    return {
        "name": name,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "tokens_per_s": round(useful / seconds),
        "mfu": round(4 * parameters * useful / seconds / _PEAK_FLOPS, 3),
        "peak_gib": round(torch.cuda.max_memory_reserved() / 2**30, 1),
        "imports_s": round(imported, 1),
        "load_s": round(loaded - imported, 1),
        "first_step_s": round(marks[0], 1),
        "step_s": round(seconds, 4),
        "losses": [round(x, 4) for x in losses],
        "line": asdict(line),
    }


def seed_loop(model: Any, rows: list[dict[str, list[int]]], steps: int, mark: Any) -> None:
    """What the project's seed does: every row padded to 2,048, loss on the padding too, plain AdamW."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()
    for step in range(steps):
        batch = [rows[(step * _BATCH + i) % len(rows)]["input_ids"][:_LENGTH] for i in range(_BATCH)]
        ids = torch.tensor([r + [0] * (_LENGTH - len(r)) for r in batch], device="cuda")
        mask = torch.tensor([[1] * len(r) + [0] * (_LENGTH - len(r)) for r in batch], device="cuda")
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.clone()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        mark()


def dense_rows() -> list[dict[str, list[int]]]:
    """Rows of exactly 2,048 random tokens."""
    import random

    draw = random.Random(0)
    rows = [[draw.randrange(1000, 100_000) for _ in range(_LENGTH)] for _ in range(_BATCH * 16)]
    return [{"input_ids": ids, "labels": ids} for ids in rows]


def korean_rows() -> list[dict[str, list[int]]]:
    """Random tokens in rows as long as those of the shipped Korean sample, each many times over."""
    import random

    draw = random.Random(0)
    text = Path("jobs/data/sample_ko.jsonl").read_text(encoding="utf-8")
    rows = []
    for line in text.splitlines() * 12:
        messages = json.loads(line)["messages"]
        size = sum(round(len(m["content"].encode()) / _BYTES_PER_TOKEN) + _TEMPLATE_TOKENS for m in messages)
        ids = [draw.randrange(1000, 100_000) for _ in range(min(size, _LENGTH))]
        rows.append({"input_ids": ids, "labels": ids})
    draw.shuffle(rows)
    return rows


ROWS = {"dense": dense_rows, "korean": korean_rows}


def make_model(folder: Path, size: str) -> None:
    """Random weights in Qwen2.5's shape, and a tokenizer of single letters, as a model folder."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    d = _DIMENSIONS[size]
    config = Qwen2Config(
        hidden_size=d["hidden_size"],
        intermediate_size=d["intermediate_size"],
        num_hidden_layers=d["layers"],
        num_attention_heads=d["heads"],
        num_key_value_heads=d["kv_heads"],
        vocab_size=d["vocab"],
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=size != "7b",
        max_position_embeddings=32_768,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {chr(97 + i): 3 + i for i in range(26)}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)


def multiplied_parameters(folder: Path) -> dict[str, int]:
    """Multiplied parameters: linear layers and the head, not the embedding table."""
    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    h, i, n = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    kv = h // c["num_attention_heads"] * c["num_key_value_heads"]
    return {"layers": n * (2 * h * h + 2 * h * kv + 3 * h * i), "head": h * c["vocab_size"]}


def table(results: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| line | useful tokens/s | MFU | peak GiB | load s | first step s | step s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        if "failed" in r:
            lines.append(f"| {r['name']} | failed: {r['failed'].strip().splitlines()[-1]} | | | | | |")
        else:
            keys = ("name", "tokens_per_s", "mfu", "peak_gib", "load_s", "first_step_s", "step_s")
            lines.append("| " + " | ".join(str(r[k]) for k in keys) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    raise SystemExit(main())
