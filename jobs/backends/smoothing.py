"""Which channels of a layer's input are large, so that INT8 can be fair to the small ones.

INT8 has even steps: in a row that holds one value a hundred times larger than the others, those lose all their bits.
In language models the large values stand in the same few channels for every token, so each channel is divided by a
factor and the weight's matching column multiplied by it, which changes nothing but the rounding (SmoothQuant, Xiao et
al. 2023). The factor is amax(input)^s / amax(weight)^(1-s).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_STRENGTH = 0.7
"""Measured on SmolLM2-135M by held-out loss before the first step: README.md beside this file."""
_ROWS, _LENGTH = 4, 512
"""Tokens that the input is judged by. More do not change the loss in its third digit."""
_LEAST = 0.01
"""A channel that was silent here may speak later: none counts as smaller than this share of the mean channel."""
_TEXT = Path(__file__).resolve().parents[1] / "data" / "sample_ko.jsonl"


def calibration_ids(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Token ids (rows, tokens) of ordinary Korean text, from the shipped sample."""
    wanted, ids = _ROWS * _LENGTH, []
    with _TEXT.open(encoding="utf-8") as lines:
        for line in lines:
            text = "\n".join(message["content"] for message in json.loads(line)["messages"])
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) >= wanted:
                break
    return torch.tensor(ids[:wanted]).view(-1, min(_LENGTH, len(ids)))


@torch.no_grad()
def measure(model: PreTrainedModel, ids: Tensor) -> dict[LoraLinear, Tensor]:
    """The factor of each input channel, fp32 (inputs,), of every LoRA layer, from a pass over `ids` (rows, tokens).

    Layers that read the same tensor get the same factor, so that it is scaled and rounded once for all of them.
    """
    groups: list[tuple[list[LoraLinear], Tensor]] = []
    seen: list[Tensor] = []

    def note(layer: LoraLinear, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0]
        if not seen or seen[-1] is not x:
            seen[:] = [x]
            groups.append(([], x.detach().abs().flatten(0, -2).amax(0).float()))
        groups[-1][0].append(layer)

    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    training = model.training
    model.eval()
    try:
        model(input_ids=ids)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    result: dict[LoraLinear, Tensor] = {}
    for members, largest in groups:
        columns = torch.stack([m.get_base_layer().weight.detach().abs().amax(0).float() for m in members]).amax(0)
        largest = largest.clamp(min=float(largest.mean()) * _LEAST)
        factor = largest**_STRENGTH / columns.clamp(min=1e-5) ** (1 - _STRENGTH)
        result |= dict.fromkeys(members, factor)
    return result
