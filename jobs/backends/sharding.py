"""A model split over the workers, for models that do not fit on one GPU (FSDP2, Zhao et al. 2023).

Each worker keeps its share of the weights, gradients and optimiser state. A layer is whole only while it is computed:
the workers gather it, and drop it again. accelerate splits, at the decoder layers; here is what it leaves open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

T = TypeVar("T")

ARGUMENTS: dict[str, Any] = {"fsdp": True, "fsdp_config": {"version": 2, "cpu_ram_efficient_loading": True}}
"""What `trl.SFTConfig` needs to split the model; layers are those that the model class says must stay in one piece."""
_LOADED_ONCE = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}


@contextmanager
def loading_once() -> Iterator[None]:
    """While this lasts, transformers reads weights on the first worker of each machine alone, into host memory.

    The others make room; accelerate sends each its share. So a machine needs host memory for one copy of the model.
    """
    before = {name: os.environ.get(name) for name in _LOADED_ONCE}
    os.environ |= _LOADED_ONCE
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether `model` has been split, so that every worker must take part in whatever is done with it."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def precision_policy() -> Any:
    """Weights gathered and gradients summed in bf16; outputs stay as they are (accelerate would round the loss)."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)


def agreed(value: T) -> T:
    """The first worker's `value`, on every worker."""
    import torch

    box: list[Any] = [value]
    torch.distributed.broadcast_object_list(box)
    return box[0]  # type: ignore[no-any-return]


def put(model: PreTrainedModel, adapter: dict[str, torch.Tensor]) -> None:
    """Each worker's share of whole `adapter` tensors, named as PEFT saves them, into the split `model`."""
    from peft import set_peft_model_state_dict
    from torch.distributed.tensor import DTensor, distribute_tensor

    like = next(parameter for parameter in model.parameters() if isinstance(parameter, DTensor))
    mesh, placements = like.device_mesh, like.placements
    shares = {name: distribute_tensor(tensor.to(like.device), mesh, placements) for name, tensor in adapter.items()}
    set_peft_model_state_dict(model, shares)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Gather the adapter; the first worker writes it as PEFT does, the others write nothing."""
    import torch
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    whole = get_model_state_dict(model, options=options)
    if torch.distributed.get_rank() == 0:
        model.save_pretrained(folder, state_dict=whole)
