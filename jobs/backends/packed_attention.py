"""Attention over rows that hold several conversations: one flash-attention call with their boundaries.

transformers' SDPA path builds a (tokens x tokens) mask for packed rows, 64 MB for 8,192 tokens, and every product in
it is computed, also those the mask throws away. The variable-length kernel inside PyTorch computes only the blocks
within a conversation and needs no further package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "haetsal_packed"


def install(model: PreTrainedModel, max_length: int) -> None:
    """Let `model` attend within conversations when it is given `position_ids` and no mask. `max_length` in tokens."""
    layer_types = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"} or getattr(model.config, "sliding_window", None):
        return  # windows need masks; SDPA handles them
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)

    def mark_boundaries(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        positions = kwargs.get("position_ids")
        if positions is None or kwargs.get("attention_mask") is not None or kwargs.get("past_key_values") is not None:
            return args, kwargs
        bounds = boundaries(positions, max_length)
        return args, kwargs | {"cu_seq_lens_q": bounds, "max_length_q": max_length}

    model.base_model.register_forward_pre_hook(mark_boundaries, with_kwargs=True)


def boundaries(positions: Tensor, max_length: int) -> Tensor:
    """Cumulative lengths, int32, of the conversations in `positions` (rows, tokens), rows laid end to end.

    A conversation starts at each position 0; the zeros that pad the end count as conversations of up to `max_length`.
    The result is filled up to a power of two with empty conversations, so that few sizes occur and little is compiled
    again.
    """
    flat = positions.reshape(-1)
    starts = (flat == 0).nonzero()[:, 0].tolist()
    last = len(flat) - 1
    while starts and len(starts) > 1 and starts[-1] == last and starts[-2] == last - 1:
        starts.pop()
        last -= 1
    if starts and starts[-1] == last and last < len(flat) - 1:
        starts += range(last + max_length, len(flat), max_length)
    size = 1 << max(4, len(starts).bit_length())
    return torch.tensor(starts + [len(flat)] * (size - len(starts)), dtype=torch.int32, device=positions.device)


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`query` (rows, heads, tokens, width); returns (rows, tokens, heads, width)."""
    if cu_seq_lens_q is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    rows, heads, tokens, width = query.shape
    q, k, v = (t.transpose(1, 2).reshape(rows * tokens, -1, width) for t in (query, key, value))
    output = torch.ops.aten._flash_attention_forward(
        q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, 0.0, True, False, scale=scaling
    )[0]
    return output.view(rows, tokens, heads, width), None
