"""What a run will do, worked out before anything is loaded: `make train DRY_RUN=1` prints it and stops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.dataset import Prepared
from jobs.settings import Settings

_ACTIVATION_BYTES = 34  # per token, layer and hidden unit in 16 bit (Korthikanti et al. 2022, eq. 1, less attention)
_NF4_BYTES = 0.55  # per weight: 4 bits and the doubly quantised scales
_LIBRARIES_BYTES = 2**30  # resident after importing torch, transformers, trl and ray


@dataclass(frozen=True)
class Line:
    """One derived value and where it comes from."""

    name: str
    value: int | float | str
    text: str
    source: str


@dataclass(frozen=True)
class Plan:
    """All derived values of a run, and a look at the first row as it will be trained on."""

    lines: tuple[Line, ...]
    preview: str

    def values(self) -> dict[str, int | float | str]:
        """Plain values by name, for events and tests."""
        return {line.name: line.value for line in self.lines}

    def show(self) -> None:
        """Print one line per value, then the first row with the trained tokens marked."""
        names = max(len(line.name) for line in self.lines)
        texts = max(len(line.text) for line in self.lines)
        for line in self.lines:
            print(f"{line.name.replace('_', ' '):<{names}}  {line.text:<{texts}}  {line.source}")
        print(f"\n{self.preview}")


def make(settings: Settings, folder: Path, data: Prepared, run_address: str) -> Plan:
    """Work out steps, tokens, memory and placement from the settings, the model's dimensions and the data."""
    import torch

    train, world = settings.train, max(1, settings.scaling.workers)
    rows_per_step = train.batch_size * train.gradient_accumulation * world
    rows = len(data.train)
    steps_per_epoch = math.ceil(rows / rows_per_step)  # the last step of an epoch takes what rows are left
    steps = train.max_steps or math.ceil(steps_per_epoch * train.epochs)
    lengths = [len(ids) for ids in data.train["input_ids"]]
    tokens = sum(lengths)
    base, trained, layers, hidden = parameters(settings, folder)
    memory = _memory_bytes(settings, base, trained, layers, hidden, min(max(lengths), settings.data.max_length))
    device = f"{torch.cuda.get_device_name()} (CUDA)" if torch.cuda.is_available() else "CPU"
    warmup = train.warmup if train.warmup >= 1 else math.ceil(train.warmup * steps)
    every = train.checkpoint_every_steps if train.checkpoint_every_steps >= 1 else train.checkpoint_every_steps * steps

    def line(name: str, value: int | float | str, source: str, text: str | None = None) -> Line:
        plain = value if isinstance(value, str) else f"{value:,}"
        return Line(name, value, text or plain, source)

    return Plan(
        (
            line("model", settings.model.source, "model.source"),
            line("device", device, "this machine"),
            line(
                "workers", settings.scaling.workers, "scaling.workers", f"{settings.scaling.workers or 'this process'}"
            ),
            line("base_parameters", base, "the model's config.json"),
            line("trained_parameters", trained, f"lora.{settings.lora.method}", f"{trained:,} ({trained / base:.2%})"),
            line("rows", rows, "data.source"),
            line("held_out_rows", len(data.held_out), "data.held_out"),
            line("tokens_per_epoch", tokens, "tokenizer"),
            line("longest_row_tokens", max(lengths), f"data.max_length={settings.data.max_length}"),
            line("packing", "on" if data.packed else "off", f"data.packing={settings.data.packing}"),
            line("rows_per_step", rows_per_step, "batch_size × gradient_accumulation × workers"),
            line("steps", steps, "train.max_steps" if train.max_steps else "⌈rows ÷ rows_per_step⌉ × train.epochs"),
            line("warmup_steps", int(warmup), "train.warmup"),
            line("tokens_in_total", int(tokens * steps / steps_per_epoch), "tokens_per_epoch × epochs"),
            line("checkpoints", math.ceil(steps / math.ceil(every)), "train.checkpoint_every_steps"),
            line("memory_bytes_per_worker", memory, "estimate", f"{memory / 2**30:.1f} GiB"),
            line("output", run_address, "storage.root"),
        ),
        data.preview,
    )


def parameters(settings: Settings, folder: Path) -> tuple[int, int, int, int]:
    """Parameters of the base and of what is trained, layers, hidden size; counted on a model without storage."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from jobs.backends.peft import with_adapter

    config = AutoConfig.from_pretrained(folder, trust_remote_code=settings.model.trust_remote_code)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=settings.model.trust_remote_code)
        base = sum(p.numel() for p in model.parameters())
        if settings.lora.method != "full":
            model = with_adapter(model, settings.lora)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    text = config.get_text_config()
    return base, trained, int(text.num_hidden_layers), int(text.hidden_size)


def _memory_bytes(settings: Settings, base: int, trained: int, layers: int, hidden: int, length: int) -> int:
    """Weights; per trained parameter fp32 weight, gradient and AdamW's two moments; activations; the libraries."""
    from jobs.backends.peft import precision

    wide = precision(settings.model).itemsize
    weights = base * (_NF4_BYTES if settings.model.quantization == "4bit" else wide)
    recomputed = settings.train.gradient_checkpointing
    per_unit = 2 * recomputed + _ACTIVATION_BYTES * (1 - recomputed)
    activations = settings.train.batch_size * length * hidden * layers * per_unit * wide // 2
    holders = settings.scaling.workers if settings.scaling.is_sharded else 1
    return int((weights + trained * 16) / holders + activations + _LIBRARIES_BYTES)
