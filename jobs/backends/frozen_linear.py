"""A frozen linear layer with a LoRA adapter as one operation, in the precision of its weights or in FP8.

PEFT computes `base(x) + B(A(x)) * scale` as separate operations: the adapter's output is written, read again, and added
to a third copy of the layer's output, and fp32 adapters cast every activation twice. Here the adapter's product is
accumulated in place onto the base product (`addmm_`), forward and backward, in the activations' precision; the
adapter's own weights stay fp32 for the optimiser. The frozen weight gets no gradient: 4 FLOP per parameter and token,
not 6.

In FP8 (e4m3, Micikevicius et al. 2022) activations and gradients get one scale per token and the weight one per output
channel; the backward product needs scales along the other axis, so the frozen weight is kept twice, as many bytes as
one bf16 copy.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor

E4M3_MAX = 448.0
"""Largest finite float8_e4m3fn."""
_ADAPTER = "default"


class FusedLoraLinear(LoraLinear):  # type: ignore[misc]  # peft ships no types
    """PEFT's LoRA layer with another forward; made by `fuse` from an existing layer, never constructed."""

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        weight, weight_scale, transposed, transposed_scale = self._operands()
        bias = self.get_base_layer().bias
        flat = x.reshape(-1, x.shape[-1])
        if self.disable_adapters:
            quantized, scale = quantize(flat) if weight_scale is not None else (None, None)
            return _product(flat, quantized, scale, weight, weight_scale, bias).view(*x.shape[:-1], -1)
        a = self.lora_A[_ADAPTER].weight.to(x.dtype)
        b = (self.lora_B[_ADAPTER].weight * self.scaling[_ADAPTER]).to(x.dtype)
        y: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            flat, weight, weight_scale, transposed, transposed_scale, bias, a, b
        )
        return y.view(*x.shape[:-1], -1)

    def _operands(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        if hasattr(self, "fp8_weight"):
            return self.fp8_weight, self.fp8_scale, self.fp8_transposed, self.fp8_transposed_scale
        weight = self.get_base_layer().weight
        return weight, None, weight.t(), None


def fuse(layer: LoraLinear, fp8: bool) -> None:
    """Turn a LoRA layer into a fused one in place; with `fp8` its frozen weight is replaced by two FP8 copies.

    Names and shapes of the adapter do not change, so it is saved and loaded as before. A layer whose sizes FP8 products
    cannot take (multiples of 16) keeps its weight.
    """
    layer.__class__ = FusedLoraLinear
    base = layer.get_base_layer()
    if not fp8 or base.in_features % 16 or base.out_features % 16:
        return
    with torch.no_grad():
        weight, scale = quantize(base.weight)
        transposed, transposed_scale = quantize(base.weight.t().contiguous())
    layer.register_buffer("fp8_weight", weight, persistent=False)
    layer.register_buffer("fp8_scale", scale.t().contiguous(), persistent=False)
    layer.register_buffer("fp8_transposed", transposed, persistent=False)
    layer.register_buffer("fp8_transposed_scale", transposed_scale.t().contiguous(), persistent=False)
    base.weight = torch.nn.Parameter(base.weight.new_empty(0), requires_grad=False)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` (rows, columns) as e4m3 and the fp32 factor of each row (rows, 1) that gives it back."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / E4M3_MAX
    return (wide / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


def _product(
    x: Tensor,
    quantized: Tensor | None,
    scale: Tensor | None,
    weight: Tensor,
    weight_scale: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The layer without its adapter: `x` times `weight` transposed, plus `bias`."""
    if quantized is None or scale is None or weight_scale is None:
        return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
    return torch._scaled_mm(
        quantized, weight.t(), scale, weight_scale, bias=bias, out_dtype=x.dtype, use_fast_accum=True
    )


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
    return _product(x, quantized, scale, weight, weight_scale, bias).addmm_(reduced, b.t()), reduced


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
    dx = _product(dy, quantized, scale, transposed, transposed_scale, None).addmm_(d_reduced, a)
    return dx, d_reduced.t() @ x, dy.t() @ reduced


@_backward.register_fake
def _backward_shapes(dy, quantized, scale, transposed, transposed_scale, x, reduced, a, b):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, weight, weight_scale, transposed, transposed_scale, bias, a, b
    ) -> Tensor:
        quantized, scale = quantize(x) if weight_scale is not None else (None, None)
        y: Tensor
        y, reduced = _forward(x, quantized, scale, weight, weight_scale, bias, a, b)
        ctx.save_for_backward(x, reduced, transposed, transposed_scale, a, b)
        return y

    @staticmethod
    def backward(ctx, dy):  # type: ignore[no-untyped-def]
        x, reduced, transposed, transposed_scale, a, b = ctx.saved_tensors
        dy = dy.contiguous()
        quantized, scale = quantize(dy) if transposed_scale is not None else (None, None)
        dx, da, db = _backward(dy, quantized, scale, transposed, transposed_scale, x, reduced, a, b)
        return dx, None, None, None, None, None, da, db
