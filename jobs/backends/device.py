"""The planner applied to the GPU of this process: what it has, what the model needs, what to do when it runs out."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from jobs.backends import planner
from jobs.backends.compiled import EIGHT_BIT_CAPABILITY
from jobs.errors import UsageError
from jobs.runs import Run
from jobs.settings import LoraSettings, Settings
from jobs.storage_errors import AlreadyExists

T = TypeVar("T")

_BF16_CAPABILITY = (8, 0)
_STRUCK_OFF = "out-of-memory"
"""Folder of the run directory with one file for each option that did not fit after all."""
_LIBRARIES_SAY = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
"""The first was met on an H200 that another process had all but filled."""


def train_planned(
    settings: Settings, folder: Path, run: Run, workers: int, say: Callable[[str], None], train: Callable[[Settings], T]
) -> T:
    """`train(settings)`, with `settings` planned for this process's GPU where `train.backend` is `auto`.

    An option that runs out of memory is struck off, on record in the run directory, and the next one is tried: at once
    by a process that trains alone, else by all workers when Ray Train has started them again, because the others wait
    for this one's gradients and would wait for ever. `say` gets the table of each plan.
    Raises UsageError when no option fits, the error itself where the workers are to start again.
    """
    import torch

    if not torch.cuda.is_available():
        return train(settings)
    share = min(1.0, settings.scaling.gpus_per_worker or 1.0)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)  # who shares a GPU runs out of memory alone
    if settings.train.backend != "auto":
        return train(settings)
    while True:
        try:
            lengths = (settings.data.max_length,)
            plan = planner.plan(settings, gpu(share), dimensions(folder, settings.lora), lengths, _struck_off(run))
        except planner.DoesNotFit as error:
            raise UsageError(
                f"model.source: {error}; use a smaller model, a shorter data.max_length or model.quantization=4bit"
            ) from None
        say(plan.table())
        try:
            return train(planner.apply(settings, plan.choice))
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            _strike_off(run, planner.key(plan.choice))
            if workers > 1:
                raise
        gc.collect()  # outside of the handler, whose traceback would keep the model alive
        torch.cuda.empty_cache()


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Whether there was no room on the GPU. PyTorch has an exception for its own allocations, and passes on in words
    what its libraries say of theirs."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _LIBRARIES_SAY)


def _strike_off(run: Run, option: planner.Key) -> None:
    record = json.dumps(option)
    with suppress(AlreadyExists):  # another rank ran out of memory too
        run.storage.create(run.path(_STRUCK_OFF, f"{sha256(record.encode()).hexdigest()[:12]}.json"), record.encode())


def _struck_off(run: Run) -> frozenset[planner.Key]:
    names = run.storage.list(run.path(_STRUCK_OFF))
    return frozenset(tuple(json.loads(run.storage.read(run.path(_STRUCK_OFF, name)))) for name in names)


def gpu(share: float = 1.0) -> planner.Gpu:
    """The GPU of this process, with the share of its memory that the process may take."""
    import torch

    capability = torch.cuda.get_device_capability()
    memory_bytes = int(share * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return planner.Gpu(
        memory_bytes, has_8bit=capability >= EIGHT_BIT_CAPABILITY, has_bf16=capability >= _BF16_CAPABILITY
    )


def dimensions(folder: Path, lora: LoraSettings) -> planner.Dimensions:
    """Sizes of the dense decoder in `folder`, read from its config.json; an adapter on all linear layers is assumed."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, intermediate, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    queries, values = head * heads, head * config.get("num_key_value_heads", heads)
    shapes = [(hidden, queries), (hidden, values), (hidden, values), (queries, hidden)]
    shapes += [(hidden, intermediate), (hidden, intermediate), (intermediate, hidden)]
    tables = 1 if config.get("tie_word_embeddings") else 2
    linear = layers * sum(a * b for a, b in shapes)
    return planner.Dimensions(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        vocabulary=config["vocab_size"],
        linear_parameters=linear,
        other_parameters=tables * config["vocab_size"] * hidden,
        adapter_parameters=linear if lora.method == "full" else layers * sum(lora.rank * (a + b) for a, b in shapes),
    )
