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
from jobs.backends.smoothing import measure


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
            fuse(module)
    fused_loss, fused_gradients = step(fused)
    assert fused_loss == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == fused_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_fused_layers_can_be_switched_off_and_saved_as_before() -> None:
    plain, fused = adapted(), adapted()
    for module in list(fused.modules()):
        if isinstance(module, Linear):
            fuse(module)
    ids = torch.arange(8)[None]
    with plain.disable_adapter(), fused.disable_adapter():
        torch.testing.assert_close(fused(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert plain.state_dict().keys() == fused.state_dict().keys()


def eight_bit(model: torch.nn.Module) -> torch.nn.Module:
    factors = measure(model, torch.arange(64).reshape(2, 32))
    for module, factor in factors.items():
        fuse(module, factor)
    return model


def test_eight_bit_layers_follow_pefts_loss_and_gradients() -> None:
    loss, gradients = step(adapted())
    fused = eight_bit(adapted())
    assert {m.int8_weight.dtype for m in fused.modules() if isinstance(m, Linear)} == {torch.int8}
    fused_loss, fused_gradients = step(fused)
    assert fused_loss == pytest.approx(loss, rel=0.01)
    for name, gradient in gradients.items():
        assert (fused_gradients[name] - gradient).norm() / gradient.norm() < 0.1, name


def test_layers_that_read_one_tensor_share_their_smoothing() -> None:
    model = adapted()
    factors = measure(model, torch.arange(64).reshape(2, 32))
    layers = dict(model.named_modules())
    for block in ("base_model.model.model.layers.0", "base_model.model.model.layers.1"):
        q, k, v = (factors[layers[f"{block}.self_attn.{name}_proj"]] for name in "qkv")
        gate, up = (factors[layers[f"{block}.mlp.{name}_proj"]] for name in ("gate", "up"))
        assert q is k is v and gate is up and gate is not q
    assert len(factors) == sum(isinstance(module, Linear) for module in model.modules())


def test_smoothing_keeps_small_channels_beside_large_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 32, generator=draw), torch.randn(16, 32, generator=draw)
    x[:, 3] *= 300
    exact = x @ weight.t()

    def error(factor: torch.Tensor) -> float:
        (xq, xs), (wq, ws) = quantize(x / factor, torch.int8), quantize(weight * factor, torch.int8)
        return float(((xq * xs) @ (wq * ws).t() - exact)[:, :].norm())

    model = torch.nn.Sequential(Linear(torch.nn.Linear(32, 16, bias=False), "default", LoraConfig(), r=2))
    model[0].get_base_layer().weight.data = weight
    found: dict[Linear, torch.Tensor] = {}
    model.forward = lambda input_ids: model[0](x)  # type: ignore[method-assign]
    found = measure(model, torch.zeros(1, 1, dtype=torch.int64))
    assert error(found[model[0]]) < error(torch.ones(32)) / 3


def test_quantised_values_are_within_their_rounding() -> None:
    x = torch.randn(32, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 32)[:, None]
    values, scale = quantize(x, torch.float8_e4m3fn)
    assert torch.all((values.float() * scale - x).abs() <= x.abs() * 2**-4 + scale * 2**-9)
    values, scale = quantize(x, torch.int8)
    assert torch.all((values.float() * scale - x).abs() <= scale * 0.5001)


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
