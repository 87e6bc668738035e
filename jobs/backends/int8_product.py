"""INT8 matrix product whose epilogue undoes the scales and adds bias and adapter: one pass over the output.

Apart, the adapter's product would read and write the whole output once more (0.2 of 1.05 ms for the widest layer of a
7B model on an H100). The kernel is for Hopper: its tiles need 196 KB of shared memory and come by the bulk copy engine.
On a CPU the same sum is computed by PyTorch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

_WIDE = {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 128, "num_stages": 4, "num_warps": 8}
_NARROW = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128, "num_stages": 4, "num_warps": 8}
"""The fastest tiles of those tried on an H100 with 8,192 rows; the narrow ones fill it when there are few columns."""
_NARROW_COLUMNS = 2048
_GROUP_M = 8
"""Tiles of rows that are worked on together, so that they share columns of the weight in the cache."""
_BLOCK_RANK = 16


def product(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, reduced: Tensor, b: Tensor
) -> Tensor:
    """`(x * x_scale) @ (weight * weight_scale).T + bias + reduced @ b.T` in the precision of `reduced`.

    `x` int8 (rows, inputs) with fp32 scales (rows, 1), `weight` int8 (outputs, inputs) with (outputs, 1), `bias`
    (outputs,), `reduced` (rows, rank), `b` (outputs, rank). Inputs and outputs are multiples of 16.
    """
    if not x.is_cuda:
        wide = torch._int_mm(x, weight.t()).float() * x_scale * weight_scale.t() + reduced.float() @ b.float().t()
        return (wide if bias is None else wide + bias).to(reduced.dtype)
    from triton.tools.tensor_descriptor import TensorDescriptor

    rows, outputs, inputs, rank = x.shape[0], weight.shape[0], x.shape[1], reduced.shape[1]
    y = torch.empty(rows, outputs, device=x.device, dtype=reduced.dtype)
    tiles = _NARROW if outputs < _NARROW_COLUMNS else _WIDE
    grid = (-(-rows // tiles["BLOCK_M"]) * -(-outputs // tiles["BLOCK_N"]),)
    _kernel()[grid](
        TensorDescriptor.from_tensor(x, [tiles["BLOCK_M"], tiles["BLOCK_K"]]),
        TensorDescriptor.from_tensor(weight, [tiles["BLOCK_N"], tiles["BLOCK_K"]]),
        y,
        x_scale,
        weight_scale,
        b if bias is None else bias,
        reduced,
        b,
        rows,
        outputs,
        inputs,
        rank,
        HAS_BIAS=bias is not None,
        BLOCK_RANK=_BLOCK_RANK,
        GROUP_M=_GROUP_M,
        **tiles,
    )
    return y


@cache
def _kernel() -> Any:
    # Triton compiles functions of a module's top level only, and is not there on machines without a GPU.
    from jobs.backends.int8_kernel import int8_lora

    return int8_lora
