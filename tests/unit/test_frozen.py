"""The fused parts compute what the plain ones do: LoRA layers, the frozen head, conversation boundaries."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from transformers import LlamaConfig, LlamaForCausalLM

from jobs.backends import frozen_head
from jobs.backends.frozen_linear import fuse, quantize
from jobs.backends.packed_attention import boundaries, install


def adapted() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=96, num_key_value_heads=2, **sizes))
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", use_rslora=True)
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide the adapter
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def step(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    ids = torch.arange(32).reshape(2, 16)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_fused_layers_give_pefts_loss_and_gradients() -> None:
    loss, gradients = step(adapted())
    fused = adapted()
    for module in list(fused.modules()):
        if isinstance(module, Linear):
            fuse(module, fp8=False)
    fused_loss, fused_gradients = step(fused)
    assert fused_loss == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == fused_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_fused_layers_can_be_switched_off_and_saved_as_before() -> None:
    plain, fused = adapted(), adapted()
    for module in list(fused.modules()):
        if isinstance(module, Linear):
            fuse(module, fp8=False)
    ids = torch.arange(8)[None]
    with plain.disable_adapter(), fused.disable_adapter():
        torch.testing.assert_close(fused(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert plain.state_dict().keys() == fused.state_dict().keys()


def test_quantised_values_are_within_e4m3s_rounding() -> None:
    x = torch.randn(32, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 32)[:, None]
    values, scale = quantize(x)
    error = (values.float() * scale - x).abs()
    assert torch.all(error <= x.abs() * 2**-4 + scale * 2**-9)


@pytest.mark.parametrize("ignored", [0, 21, 50])
def test_the_frozen_head_is_cross_entropy(ignored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_head, "_CHUNK_TOKENS", 8)  # several chunks, the last one partly ignored
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(50, 16, generator=draw, requires_grad=True)
    weight = torch.randn(96, 16, generator=draw)
    labels = torch.randint(0, 96, (50,), generator=draw)
    labels[torch.randperm(50, generator=draw)[:ignored]] = -100
    loss, correct, entropy, tokens = frozen_head.linear_cross_entropy(hidden, weight, labels, 7)
    loss.backward()
    gradient, hidden.grad = hidden.grad, None
    logits = hidden @ weight.t()
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / 7
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, hidden.grad)
    valid = labels != -100
    assert int(tokens) == 50 - ignored
    assert int(correct) == int(((logits.argmax(-1) == labels) & valid).sum())
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy()[valid].sum())


def test_conversations_and_padding_are_told_apart() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0]])  # 3 tokens, 2 tokens, 6 of padding
    assert boundaries(positions, 4).tolist() == [0, 3, 5, 9] + [11] * 12


def test_rows_are_laid_end_to_end() -> None:
    assert boundaries(torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]]), 4).tolist() == [0, 2, 4] + [8] * 13


@pytest.mark.parametrize("padding", [0, 5])
def test_rows_that_are_not_packed_are_attended_as_before(padding: int) -> None:
    plain, other = adapted().get_base_model(), adapted().get_base_model()
    install(other, max_length=16)
    ids = torch.arange(32).reshape(2, 16)
    mask = torch.ones_like(ids)
    mask[1, 16 - padding :] = 0
    kept = mask.bool()
    theirs, ours = (m(input_ids=ids, attention_mask=mask).logits[kept] for m in (plain, other))
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(other(input_ids=ids.flip(1), attention_mask=mask).logits[kept], ours)
