"""Next-token cross-entropy through a frozen output head, without ever holding all logits.

A 7B model's logits for 8,192 tokens are 2.5 GB in bf16 and 5 GB in fp32, several times over. Here the tokens that carry
loss pass through the head in chunks, and since the head is frozen the gradient of the hidden states is computed in the
same pass, while a chunk's logits still exist (as Liger Kernel does, Hsu et al. 2024): two matrix products per token in
all, where recomputing the logits in the backward pass takes three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jobs.training.scoring import IGNORED

_CHUNK_TOKENS = 2048
"""Tokens per chunk: enough rows to fill the GPU; the logits of one chunk are 0.6 GB for a vocabulary of 152,064."""

Loss = tuple[Tensor, Tensor, Tensor, Tensor]
"""Mean loss, number of correct predictions, summed entropy in nats, number of tokens with loss."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, items: Tensor | int | None) -> Loss:
    """Loss of predicting `labels` (tokens,) from `hidden` (tokens, width) through `weight` (vocabulary, width).

    Tokens labelled -100 cost nothing. The sum is divided by `items`, or by the number of tokens with loss.
    """
    valid = labels != IGNORED
    tokens = valid.sum()
    order = valid.to(torch.int8).argsort(descending=True, stable=True)
    chunks = max(1, -(-int(tokens) // _CHUNK_TOKENS))
    kept = order[: chunks * _CHUNK_TOKENS]
    loss, correct, entropy = _Head.apply(hidden[kept], weight, labels[kept])  # type: ignore[no-untyped-call]
    return loss / (tokens.clamp(min=1) if items is None else items), correct, entropy, tokens


def install() -> None:
    """Let TRL's `chunked_nll` loss use this head wherever the model's head is frozen and plain."""
    from trl.trainer import sft_trainer

    theirs: Callable[..., Loss] = sft_trainer._chunked_cross_entropy_loss
    if theirs.__module__ == __name__:
        return

    def loss(hidden_states: Tensor, lm_head_weight: Tensor, chunk_size: int, **options: Any) -> Loss:
        plain = options.get("logit_scale", 1.0) == 1.0 and not options.get("final_logit_softcapping")
        if lm_head_weight.requires_grad or options.get("lm_head_bias") is not None or not plain:
            return theirs(hidden_states, lm_head_weight, chunk_size, **options)
        labels = options.get("shift_labels")
        if labels is None:
            hidden_states, labels = hidden_states[..., :-1, :], options["labels"][..., 1:]
        hidden = hidden_states.reshape(-1, hidden_states.shape[-1])
        return linear_cross_entropy(hidden, lm_head_weight, labels.reshape(-1), options.get("num_items_in_batch"))

    loss.__module__ = __name__
    sft_trainer._chunked_cross_entropy_loss = loss


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels):  # type: ignore[no-untyped-def]
        weight = weight.to(hidden.dtype)
        score = _score_compiled if hidden.is_cuda else _score
        d_hidden = torch.empty_like(hidden)
        sums = torch.zeros(3, dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), _CHUNK_TOKENS):
            part = slice(start, start + _CHUNK_TOKENS)
            chunk_sums, d_logits = score(hidden[part] @ weight.t(), labels[part])
            sums += chunk_sums
            if ctx.needs_input_grad[0]:
                torch.mm(d_logits, weight, out=d_hidden[part])
        ctx.save_for_backward(d_hidden)
        loss, correct, entropy = sums.unbind()
        ctx.mark_non_differentiable(correct, entropy)
        return loss.clone(), correct.clone(), entropy.clone()

    @staticmethod
    def backward(ctx, d_loss, *_others):  # type: ignore[no-untyped-def]
        (d_hidden,) = ctx.saved_tensors
        return d_hidden * d_loss.to(d_hidden.dtype), None, None


def _score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of loss, hits and entropy (3,), and the gradient of the loss by the logits (rows, vocabulary)."""
    wide = logits.float()
    valid = labels != IGNORED
    log_total = wide.logsumexp(-1, keepdim=True)
    target = wide.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    p = (wide - log_total).exp()
    nll = torch.where(valid, log_total[:, 0] - target, 0.0).sum()
    correct = ((target >= wide.amax(-1)) & valid).float().sum()
    entropy = torch.where(valid, log_total[:, 0] - (p * wide).sum(-1), 0.0).sum()
    hit = torch.arange(logits.shape[1], device=logits.device) == labels[:, None]
    d_logits = torch.where(valid[:, None], p - hit.float(), 0.0).to(logits.dtype)
    return torch.stack((nll, correct, entropy)), d_logits


_score_compiled = torch.compile(_score, dynamic=False)
