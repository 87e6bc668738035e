"""Gradients of the compiled backend's parts on CUDA against PEFT in fp32."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import Linear

from jobs.backends import int8_product
from jobs.backends.frozen_linear import fuse
from tests.unit.test_frozen import adapted, eight_bit, step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def distance(other: torch.nn.Module, expected: dict[str, torch.Tensor]) -> float:
    """Largest relative L2 distance of a gradient from what it should be."""
    _, found = step(other)
    return max(float((found[n].float() - g).norm() / g.norm()) for n, g in expected.items())


@pytest.mark.parametrize(("quantization", "factor"), [("none", 1.25), ("8bit", 5)])
def test_gradients_are_as_near_to_fp32_as_those_of_peft_in_bf16(quantization: str, factor: float) -> None:
    """Fusing must not add to what bf16 rounds away; e4m3 has five bits less, but errors of many products cancel."""
    with torch.device("cuda"):
        _, expected = step(adapted())
        plain, fused = (adapted().to(torch.bfloat16) for _ in range(2))
        if quantization == "8bit":
            eight_bit(fused)
        else:
            for module in list(fused.modules()):
                if isinstance(module, Linear):
                    fuse(module)
        theirs, ours = distance(plain, expected), distance(fused, expected)
    assert 0 < ours < theirs * factor, (ours, theirs)


@pytest.mark.parametrize("shape", [(256, 512, 3584), (200, 272, 144), (1, 16, 16)])
@pytest.mark.parametrize("rank", [4, 16, 40])
@pytest.mark.parametrize("biased", [False, True])
def test_the_int8_kernel_is_the_plain_product(shape: tuple[int, int, int], rank: int, biased: bool) -> None:
    rows, outputs, inputs = shape
    draw = torch.Generator("cuda").manual_seed(0)
    x, weight = (
        torch.randint(-127, 128, (n, inputs), device="cuda", generator=draw).to(torch.int8) for n in (rows, outputs)
    )
    x_scale, weight_scale = (torch.rand(n, 1, device="cuda", generator=draw) * 1e-3 for n in (rows, outputs))
    reduced, b = (torch.randn(n, rank, device="cuda", generator=draw).bfloat16() for n in (rows, outputs))
    bias = torch.randn(outputs, device="cuda", generator=draw).bfloat16() if biased else None
    found = int8_product.product(x, x_scale, weight, weight_scale, bias, reduced, b)
    expected = (x.double() * x_scale) @ (weight.double() * weight_scale).t() + reduced.double() @ b.double().t()
    expected = expected if bias is None else expected + bias
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-2)
