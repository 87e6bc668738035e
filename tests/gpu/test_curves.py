"""Every backend and precision against `peft` in fp32, 200 steps on the small real model, each in its own process."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.timeout(900),
]
BANDS = {
    "peft-bf16": (0.01, 0.01),
    "compiled-bf16": (0.01, 0.01),
    "compiled-bf16-ckpt": (0.01, 0.01),
    "compiled-8bit": (0.01, 0.01),
    "unsloth-bf16": (0.01, 0.01),
    "unsloth-4bit": (0.08, 0.10),
}
"""Relative distance allowed from the reference: training loss over the last 20 steps, which includes the error of a
quantised base; and held-out loss of the saved adapter on the fp32 base, which does not."""


@functools.cache
def curve(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.gpu.curves", name, "--steps", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("CURVE ")]
    assert found, done.stderr[-3000:]
    return dict(json.loads(found[-1].removeprefix("CURVE ")))


@pytest.mark.parametrize("name", BANDS)
def test_curve_and_adapter_follow_the_reference(name: str) -> None:
    if name.startswith("unsloth") and importlib.util.find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed")
    reference, other = curve("peft-fp32"), curve(name)
    assert other["steps"] == reference["steps"] == 200
    assert reference["losses"][-1] < reference["losses"][0] * 0.9  # it learns, so there is something to follow
    training, held_out = BANDS[name]
    assert other["last_20"] == pytest.approx(reference["last_20"], rel=training)
    assert other["held_out_as_peft_fp32"] == pytest.approx(reference["held_out"], rel=held_out)
