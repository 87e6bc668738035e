"""Model FLOP/s utilisation: what training needs at the least over what the GPU could do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobs.settings import Settings

PEAK_BF16: dict[str, float] = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "L4": 121e12,
}
"""Dense bf16 FLOP/s by NVIDIA's data sheets, by words of the device's name; a GPU that is not here has no figure."""


def peak_flops(device: str) -> float | None:
    """Of the GPU of this name, as `torch.cuda.get_device_name` says it; None if it is not known."""
    words = device.split()
    found = (flops for name, flops in PEAK_BF16.items() if all(word in words for word in name.split()))
    return next(found, None)


def flops_per_token(base: int, trained: int) -> int:
    """Forward and backward pass for one token, attention's share left out (Kaplan et al. 2020, section 2.1).

    Each parameter takes 2 in the forward pass and 2 to hand the gradient on; only those that are trained take 2 more.
    `trained` is a part of `base` in full fine-tuning and stands beside it otherwise.
    """
    frozen = base - trained if trained == base else base
    return 4 * frozen + 6 * trained


def on_this_gpu(settings: Settings, folder: Path, gpus: int) -> Callable[[float], float] | None:
    """The share of the peak of all `gpus` as a function of tokens per second; None where the peak is not known."""
    import torch

    peak = peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if peak is None:
        return None
    from jobs.training.plan import parameters

    base, trained, *_ = parameters(settings, folder)
    share = flops_per_token(base, trained) / (peak * gpus)
    return lambda tokens_per_second: tokens_per_second * share
