"""Peak memory of this process."""

from __future__ import annotations

import resource
import sys


def peak_bytes() -> int:
    """Most bytes in use so far: of the GPU where there is one, else resident memory of this process."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Most resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
