"""What to train with on a GPU: backend, precision, rows per pass, checkpointing and packing, from a few sizes.

A pure function with an explained table. Options are sorted from the fastest known to the slowest; the first that fits
in the GPU's memory with a margin is the plan. An option that runs out of memory all the same is struck off and the
next one that needs less is taken (`struck_off`).

Memory of a training step, in bytes: frozen weights (bf16 2 per parameter, 8bit two copies of 1 for the linear layers,
NF4 0.55), trained ones 16 each (fp32 weight, gradient, two Adam moments), a fixed share for kernels and workspace, the
head's chunk of logits, and the activations kept for the backward pass. The last are counted per token and layer: what a
layer keeps of its hidden and intermediate vectors, or its input alone where it is checkpointed. The counts were set on
one H100 with 7B dimensions (measured 51.9 GiB for 8bit and 51.4 for bf16, without checkpointing).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.settings import Settings

Backend = Literal["peft", "compiled", "unsloth"]
Quantization = Literal["none", "4bit", "8bit"]
Key = tuple[Backend, Quantization, int, float, bool]
"""Backend, precision, rows per pass, share recomputed, whether split over the workers: what makes two options the same
for `struck_off`."""

_GIB = 2**30
_MARGIN = 0.08
"""Share of the GPU's memory left free: fragmentation, and rows longer than planned."""
_FIXED_BYTES = 3 * _GIB
"""CUDA context, cuBLAS workspace, kernels' scratch space, one layer's recomputation."""
_KEPT_HIDDEN, _KEPT_INTERMEDIATE = 7, 3
"""Vectors of hidden and of intermediate width, two bytes an element, that a layer keeps of each token without
checkpointing; attention adds queries and values."""
_LOGITS_TOKENS = 2048
"""Tokens whose logits exist at once (`frozen_head`), in bf16 twice."""
_BYTES_PER_WEIGHT: dict[Quantization, float] = {"none": 2.0, "8bit": 2.0, "4bit": 0.55}
_FULL_ROW_TOKENS = 16_384
"""Tokens per pass beyond which matrix products gain nothing from more rows."""
_SLOWDOWN_CHECKPOINTED = 1.30
"""Time of a step with every layer recomputed, over that of one with none."""
_SLOWDOWN_SHARDED = 1.09
"""Time of a step whose layers are gathered from the other workers, over that of one with a copy on each (two H200)."""
_WHOLE_LAYERS = 3
"""Layers of a split model that are whole at once: the one at work, the next one arriving, the last one leaving."""


@dataclass(frozen=True)
class Gpu:
    """One accelerator: memory in bytes, and what it can multiply."""

    memory_bytes: int
    has_8bit: bool
    has_bf16: bool = True


@dataclass(frozen=True)
class Dimensions:
    """What of a model decides its memory; widths in elements."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    linear_parameters: int
    other_parameters: int
    adapter_parameters: int


@dataclass(frozen=True)
class Choice:
    """One way to train. `checkpointing` is the share of layers recomputed, `sharded` whether each worker holds only a
    share of the model; `speed` is relative to PEFT's in bf16."""

    backend: Backend
    quantization: Quantization
    batch_size: int
    checkpointing: float
    packing: bool
    sharded: bool
    speed: float
    memory_bytes: int


@dataclass(frozen=True)
class Plan:
    """The choice, and those tried before and after it with the verdict on each."""

    choice: Choice
    considered: tuple[tuple[Choice, str], ...]

    def table(self) -> str:
        """The options as aligned text, one a line, with the reason each was taken or left."""
        head = (
            f"{'backend':9} {'weights':7} {'rows':>4} {'recomputed':>10} {'packed':6} {'split':5} {'speed':>6} "
            f"{'GiB':>6}  verdict"
        )
        return "\n".join([head, *(_line(choice, verdict) for choice, verdict in self.considered)])


class DoesNotFit(Exception):
    """No option fits; the message says how much the smallest one needs. Callers turn it into their own error."""


def plan(
    settings: Settings,
    gpu: Gpu,
    model: Dimensions,
    row_lengths: tuple[int, ...],
    struck_off: frozenset[Key] = frozenset(),
) -> Plan:
    """The fastest option that fits. What `settings` name (backend, quantization, checkpointing, packing, shard) stays.

    `row_lengths` in tokens. Rows per optimiser step and worker stay `train.batch_size * train.gradient_accumulation`.
    Each worker holds the whole model (DDP) or, where several share the work, its share of it (FSDP). Nothing is chosen
    that needs as much memory as an option that ran out of it. Raises DoesNotFit.
    """
    options = sorted(_options(settings, gpu, model, row_lengths), key=lambda c: (-c.speed, c.memory_bytes))
    limit = int(gpu.memory_bytes * (1 - _MARGIN))
    limit = min([limit, *(choice.memory_bytes - 1 for choice in options if key(choice) in struck_off)])
    considered: list[tuple[Choice, str]] = []
    taken: Choice | None = None
    for choice in options:
        if key(choice) in struck_off:
            verdict = "ran out of memory"
        elif choice.memory_bytes > limit:
            verdict = f"needs {choice.memory_bytes / _GIB:.1f} of {limit / _GIB:.1f} GiB"
        elif taken is None:
            taken, verdict = choice, "chosen: the fastest that fits"
        else:
            continue
        considered.append((choice, verdict))
    if taken is None:
        smallest = min((c.memory_bytes for c, _ in considered), default=0)
        raise DoesNotFit(f"the smallest option needs {smallest / _GIB:.1f} GiB, this GPU offers {limit / _GIB:.1f} GiB")
    return Plan(taken, tuple(considered))


def key(choice: Choice) -> Key:
    """The option's `Key`."""
    return choice.backend, choice.quantization, choice.batch_size, choice.checkpointing, choice.sharded


def apply(settings: Settings, choice: Choice) -> Settings:
    """Settings that train as `choice` says, with as many rows per optimiser step as before."""
    train = settings.train
    rows = train.batch_size * train.gradient_accumulation
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(update={"quantization": choice.quantization}),
            "data": settings.data.model_copy(update={"packing": "on" if choice.packing else "off"}),
            "scaling": settings.scaling.model_copy(update={"shard": "on" if choice.sharded else "off"}),
            "train": train.model_copy(
                update={
                    "backend": choice.backend,
                    "batch_size": choice.batch_size,
                    "gradient_accumulation": max(1, rows // choice.batch_size),
                    "gradient_checkpointing": choice.checkpointing,
                }
            ),
        }
    )


def memory_bytes(
    model: Dimensions, backend: Backend, quantization: Quantization, tokens: int, checkpointing: float, workers: int = 1
) -> int:
    """Peak of a step over `tokens` tokens, the model split over `workers`; see the module's docstring."""
    linear = model.linear_parameters * _BYTES_PER_WEIGHT[quantization]
    weights = linear + model.other_parameters * 2
    trained = model.adapter_parameters * 16
    if workers > 1:
        weights = weights / workers + linear / model.layers * _WHOLE_LAYERS + model.other_parameters * 2
        trained //= workers
    kept = 2 * (_KEPT_HIDDEN * model.hidden + _KEPT_INTERMEDIATE * model.intermediate)
    per_token = model.layers * (kept * (1 - checkpointing) + 2 * model.hidden * checkpointing) + kept
    if backend == "peft":
        per_token *= 1.25  # the adapters' own copies of inputs and outputs, in fp32 in part
    logits = 2 * 2 * min(tokens, _LOGITS_TOKENS) * model.vocabulary
    return int(weights + trained + tokens * per_token + logits + _FIXED_BYTES)


def _options(settings: Settings, gpu: Gpu, model: Dimensions, row_lengths: tuple[int, ...]) -> Iterator[Choice]:
    longest = min(max(row_lengths), settings.data.max_length)
    mean = sum(min(n, settings.data.max_length) for n in row_lengths) / len(row_lengths)
    packs = settings.data.packing != "off"
    for backend, quantization, speed in _kinds(settings, gpu):
        row = settings.data.max_length if packs else longest
        useful = 1.0 if packs else mean / longest
        for batch_size in _divisors(settings.train.batch_size * settings.train.gradient_accumulation):
            tokens = batch_size * row
            filled = min(1.0, 0.5 + 0.5 * tokens / _FULL_ROW_TOKENS) if tokens < _FULL_ROW_TOKENS else 1.0
            for share in _shares(settings, backend):
                slower = 1 + (_SLOWDOWN_CHECKPOINTED - 1) * share
                rate = speed * filled * useful / slower
                for workers in _splits(settings, backend, quantization):
                    needed = memory_bytes(model, backend, quantization, tokens, share, workers)
                    shown = round(rate / (_SLOWDOWN_SHARDED if workers > 1 else 1), 3)
                    yield Choice(backend, quantization, batch_size, share, packs, workers > 1, shown, needed)


def _kinds(settings: Settings, gpu: Gpu) -> Iterator[tuple[Backend, Quantization, float]]:
    """Backends and precisions that can train these settings, with their measured speed on full rows, PEFT bf16 = 1."""
    plain = settings.lora.method == "lora"
    fusible = plain and settings.lora.dropout == 0 and gpu.has_bf16
    table: list[tuple[Backend, Quantization, float, bool]] = [
        ("compiled", "8bit", 2.29, fusible and gpu.has_8bit),
        ("compiled", "none", 1.70, fusible),
        ("peft", "none", 1.0, True),
        ("unsloth", "4bit", 1.45, plain and settings.train.backend == "unsloth"),
        ("unsloth", "none", 1.45, plain and settings.train.backend == "unsloth"),
        ("peft", "4bit", 0.75, settings.lora.method != "full"),
    ]
    for backend, quantization, speed, possible in table:
        wanted = settings.train.backend in ("auto", backend) and settings.model.quantization == quantization
        if possible and wanted:
            yield backend, quantization, speed


def _shares(settings: Settings, backend: Backend) -> tuple[float, ...]:
    if settings.train.gradient_checkpointing:
        return (settings.train.gradient_checkpointing,)
    return (0.0, 0.25, 0.5, 0.75, 1.0) if backend == "compiled" else (0.0, 1.0)


def _splits(settings: Settings, backend: Backend, quantization: Quantization) -> Iterator[int]:
    """Over how many workers the model may be split; 1 is a copy on each."""
    scaling = settings.scaling
    if scaling.shard != "on":
        yield 1
    if scaling.shard == "off" or scaling.workers < 2 or scaling.gpus_per_worker < 1:
        return
    if backend != "unsloth" and quantization == "none" and settings.lora.method != "full":
        yield scaling.workers


def _divisors(rows: int) -> list[int]:
    return [n for n in range(1, rows + 1) if rows % n == 0]


def _line(choice: Choice, verdict: str) -> str:
    weights = {"none": "bf16"}.get(choice.quantization, choice.quantization)
    packed, split = ("yes" if it else "no" for it in (choice.packing, choice.sharded))
    size = choice.memory_bytes / _GIB
    return (
        f"{choice.backend:9} {weights:7} {choice.batch_size:4d} {choice.checkpointing:10.0%} {packed:6} {split:5} "
        f"{choice.speed:6.2f} {size:6.1f}  {verdict}"
    )
