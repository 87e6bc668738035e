"""Gradients of the compiled backend's parts on CUDA against PEFT in fp32."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import Linear

from jobs.backends.frozen_linear import fuse
from tests.unit.test_frozen import adapted, step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize(("fp8", "tolerance"), [(False, 0.02), (True, 0.15)])
def test_gradients_agree_with_fp32(fp8: bool, tolerance: float) -> None:
    """Relative L2 distance: bf16 rounds to 2^-9, e4m3 to 2^-4, and errors of many products average out."""
    with torch.device("cuda"):
        reference, fused = adapted(), adapted().to(torch.bfloat16)
        for module in list(fused.modules()):
            if isinstance(module, Linear):
                fuse(module, fp8)
        _, expected = step(reference)
        _, found = step(fused)
    for name, gradient in expected.items():
        assert (found[name].float() - gradient).norm() / gradient.norm() < tolerance, name
