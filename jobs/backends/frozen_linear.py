"""A frozen linear layer with a LoRA adapter as one operation, in the precision of its weights or in 8 bits.

PEFT computes `base(x) + B(A(x)) * scale` as separate operations: the adapter's output is written, read again, and added
to a third copy of the layer's output, and fp32 adapters cast every activation twice. Here the adapter's product is
accumulated onto the base product, forward and backward, in the activations' precision; the adapter's own weights stay
fp32 for the optimiser. The frozen weight gets no gradient: 4 FLOP per parameter and token, not 6.

In 8 bits the forward product is INT8 with smoothed channels (`smoothing.py`), one scale per token and one per output
channel: its rounding error is well below FP8's, and the loss follows the forward pass. The backward product is FP8
(e4m3, Micikevicius et al. 2022), whose range suits gradients, with its scales along the other axis; so the frozen
weight is kept twice, in as many bytes as one bf16 copy.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor

from jobs.backends import int8_product

INT8_MAX = 127.0
E4M3_MAX = 448.0
"""Largest finite float8_e4m3fn."""
_ADAPTER = "default"


class FusedLoraLinear(LoraLinear):  # type: ignore[misc]  # peft ships no types
    """PEFT's LoRA layer with another forward; made by `fuse` from an existing layer, never constructed."""

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if self.disable_adapters:
            a, b = flat.new_zeros(1, self.in_features), flat.new_zeros(self.out_features, 1)
        else:
            a = self.lora_A[_ADAPTER].weight.to(x.dtype)
            b = (self.lora_B[_ADAPTER].weight * self.scaling[_ADAPTER]).to(x.dtype)
        base = self.get_base_layer()
        operands: tuple[Tensor | None, ...] = (base.weight, None, None, base.weight.t(), None)
        if hasattr(self, "int8_weight"):
            operands = (self.int8_weight, self.int8_scale, self.smoothing, self.fp8_weight, self.fp8_scale)
        y: Tensor = _LoraProduct.apply(flat, *operands, base.bias, a, b)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


def fuse(layer: LoraLinear, factor: Tensor | None = None) -> None:
    """Turn a LoRA layer into a fused one in place; with `factor` (inputs,) its frozen weight becomes two 8-bit copies.

    `factor` is what each input channel is divided by before it is rounded (`smoothing.measure`). Names and shapes of
    the adapter do not change, so it is saved and loaded as before. A layer whose sizes 8-bit products cannot take
    (multiples of 16) keeps its weight.
    """
    layer.__class__ = FusedLoraLinear
    base = layer.get_base_layer()
    if factor is None or base.in_features % 16 or base.out_features % 16:
        return
    with torch.no_grad():
        forward, forward_scale = quantize(base.weight.float() * factor, torch.int8)
        backward, backward_scale = quantize(base.weight.t().contiguous(), torch.float8_e4m3fn)
    layer.register_buffer("int8_weight", forward, persistent=False)
    layer.register_buffer("int8_scale", forward_scale, persistent=False)
    layer.register_buffer("smoothing", factor, persistent=False)  # one tensor for all readers of an input: scaled once
    layer.register_buffer("fp8_weight", backward, persistent=False)
    layer.register_buffer("fp8_scale", backward_scale.t().contiguous(), persistent=False)
    base.weight = torch.nn.Parameter(base.weight.new_empty(0), requires_grad=False)


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`x` (rows, columns) as int8 or e4m3, and the fp32 factor of each row (rows, 1) that gives it back."""
    largest = INT8_MAX if dtype == torch.int8 else E4M3_MAX
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / largest
    scaled = wide / scale
    return (scaled.round() if dtype == torch.int8 else scaled).clamp(-largest, largest).to(dtype), scale


@torch.library.custom_op("haetsal::lora_forward", mutates_args=())
def _forward(
    x: Tensor,
    quantized: Tensor | None,
    scale: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor | None,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
) -> tuple[Tensor, Tensor]:
    reduced = x @ a.t()
    if quantized is not None and scale is not None and weight_scale is not None:
        return int8_product.product(quantized, scale, weight, weight_scale, bias, reduced, b), reduced
    y = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
    return y.addmm_(reduced, b.t()), reduced


@_forward.register_fake
def _forward_shapes(x, quantized, scale, weight, weight_scale, bias, a, b):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], a.shape[0])


@torch.library.custom_op("haetsal::lora_backward", mutates_args=())
def _backward(
    dy: Tensor,
    quantized: Tensor | None,
    scale: Tensor | None,
    transposed: Tensor,
    transposed_scale: Tensor | None,
    x: Tensor,
    reduced: Tensor,
    a: Tensor,
    b: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    d_reduced = dy @ b
    if quantized is not None and scale is not None and transposed_scale is not None:
        dx = torch._scaled_mm(
            quantized, transposed.t(), scale, transposed_scale, out_dtype=dy.dtype, use_fast_accum=True
        )
    else:
        dx = dy @ transposed.t()
    return dx.addmm_(d_reduced, a), d_reduced.t() @ x, dy.t() @ reduced


@_backward.register_fake
def _backward_shapes(dy, quantized, scale, transposed, transposed_scale, x, reduced, a, b):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, weight, weight_scale, smoothing, transposed, transposed_scale, bias, a, b
    ) -> Tensor:
        quantized, scale = quantize(x / smoothing, torch.int8) if smoothing is not None else (None, None)
        y: Tensor
        y, reduced = _forward(x, quantized, scale, weight, weight_scale, bias, a, b)
        ctx.save_for_backward(x, reduced, transposed, transposed_scale, a, b)
        return y

    @staticmethod
    def backward(ctx, dy):  # type: ignore[no-untyped-def]
        x, reduced, transposed, transposed_scale, a, b = ctx.saved_tensors
        dy = dy.contiguous()
        quantized, scale = quantize(dy, torch.float8_e4m3fn) if transposed_scale is not None else (None, None)
        dx, da, db = _backward(dy, quantized, scale, transposed, transposed_scale, x, reduced, a, b)
        return dx, None, None, None, None, None, None, da, db
