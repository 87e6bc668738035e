"""The planner: what fits is chosen, the fastest first; what ran out of memory is not chosen again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.backends import planner
from jobs.backends.device import dimensions
from jobs.settings import LoraSettings, Settings, load

GIB = 2**30
H100 = planner.Gpu(80 * GIB, has_8bit=True)
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}


@pytest.fixture
def qwen(tmp_path: Path) -> planner.Dimensions:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    return dimensions(tmp_path, LoraSettings(rank=16))


def settings(overrides: str = "") -> Settings:
    return load(None, f"data.max_length=2048 train.batch_size=4 {overrides}")


def test_sizes_are_those_of_the_published_model(qwen: planner.Dimensions) -> None:
    assert qwen.linear_parameters + qwen.other_parameters == pytest.approx(7.615e9, rel=0.001)
    assert qwen.adapter_parameters == 40_370_176  # what PEFT reports for r=16 on all linear layers


def test_planned_memory_agrees_with_what_was_measured_on_an_h100(qwen: planner.Dimensions) -> None:
    measured_gib = {("compiled", "8bit", 0.0): 51.9, ("compiled", "none", 0.0): 51.4}
    for (backend, quantization, share), gib in measured_gib.items():
        planned = planner.memory_bytes(qwen, backend, quantization, 4 * 2048, share) / GIB  # type: ignore[arg-type]
        assert gib * 0.97 < planned < gib * 1.2, (backend, quantization, planned)
    planned = planner.memory_bytes(qwen, "compiled", "none", 4 * 2048, 0.0, workers=2) / GIB
    assert 47.0 * 0.97 < planned < 47.0 * 1.2  # measured on two H200


def test_fast_and_whole_where_memory_allows(qwen: planner.Dimensions) -> None:
    choice = planner.plan(settings("model.quantization=8bit"), H100, qwen, (2048,)).choice
    assert (choice.backend, choice.quantization, choice.checkpointing) == ("compiled", "8bit", 0.0)


def test_less_memory_costs_checkpointing_before_it_costs_the_backend(qwen: planner.Dimensions) -> None:
    small = planner.plan(settings(), planner.Gpu(40 * GIB, has_8bit=False), qwen, (2048,)).choice
    assert small.backend == "compiled"
    assert small.memory_bytes < 40 * GIB * 0.92
    assert small.checkpointing > 0 or small.batch_size < 4


def test_every_smaller_gpu_gets_a_plan_that_fits_or_a_refusal(qwen: planner.Dimensions) -> None:
    speeds = []
    for gib in range(80, 16, -8):
        gpu = planner.Gpu(gib * GIB, has_8bit=True)
        try:
            choice = planner.plan(settings(), gpu, qwen, (2048,)).choice
        except planner.DoesNotFit as error:
            assert "GiB" in str(error)
            continue
        assert choice.memory_bytes < gib * GIB
        speeds.append(choice.speed)
    assert len(speeds) > 3
    assert speeds == sorted(speeds, reverse=True)


def test_an_option_that_ran_out_of_memory_is_struck_off(qwen: planner.Dimensions) -> None:
    first = planner.plan(settings(), H100, qwen, (2048,))
    second = planner.plan(settings(), H100, qwen, (2048,), frozenset({planner.key(first.choice)}))
    assert planner.key(second.choice) != planner.key(first.choice)
    assert second.choice.speed <= first.choice.speed
    assert "ran out of memory" in second.table()


def test_rows_per_optimiser_step_never_change(qwen: planner.Dimensions) -> None:
    wanted = settings("train.batch_size=6 train.gradient_accumulation=4")
    for gib in (80, 48, 32, 24):
        plan = planner.plan(wanted, planner.Gpu(gib * GIB, has_8bit=True), qwen, (2048,))
        train = planner.apply(wanted, plan.choice).train
        assert train.batch_size * train.gradient_accumulation == 24


def test_what_only_peft_can_train_goes_to_peft(qwen: planner.Dimensions) -> None:
    for overrides in ("lora.method=dora", "lora.dropout=0.1", "model.quantization=4bit"):
        assert planner.plan(settings(overrides), H100, qwen, (2048,)).choice.backend == "peft"


def test_precision_is_the_users_choice(qwen: planner.Dimensions) -> None:
    assert planner.plan(settings(), H100, qwen, (2048,)).choice.quantization == "none"


def test_the_backend_that_is_named_is_kept(qwen: planner.Dimensions) -> None:
    assert planner.plan(settings("train.backend=unsloth"), H100, qwen, (2048,)).choice.backend == "unsloth"


QWEN_72B = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
}


def test_a_model_that_fits_on_no_gpu_is_split_over_the_workers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_72B))
    model = dimensions(tmp_path, LoraSettings(rank=16))
    with pytest.raises(planner.DoesNotFit):
        planner.plan(settings(), H100, model, (2048,))
    four = "scaling.workers=4 scaling.gpus_per_worker=1"
    plan = planner.plan(settings(four), H100, model, (2048,))
    assert plan.choice.sharded
    assert plan.choice.memory_bytes < 80 * GIB
    applied = planner.apply(settings(four), plan.choice)
    assert applied.scaling.is_sharded
    assert applied.model.quantization == "none"
    with pytest.raises(planner.DoesNotFit):
        planner.plan(settings(f"{four} scaling.shard=off"), H100, model, (2048,))


def test_a_model_that_fits_is_copied_because_that_is_faster(qwen: planner.Dimensions) -> None:
    two = "scaling.workers=2 scaling.gpus_per_worker=1"
    assert not planner.plan(settings(two), H100, qwen, (2048,)).choice.sharded
    assert planner.plan(settings(f"{two} scaling.shard=on"), H100, qwen, (2048,)).choice.sharded


def test_what_cannot_be_split_is_not(qwen: planner.Dimensions) -> None:
    for overrides in ("model.quantization=8bit", "model.quantization=4bit", "lora.method=full"):
        wanted = settings(f"scaling.workers=2 scaling.gpus_per_worker=1 {overrides}")
        huge = planner.Gpu(4000 * GIB, has_8bit=True)
        plan = planner.plan(wanted, huge, qwen, (2048,))
        assert not any(choice.sharded for choice, _ in plan.considered)


def test_nothing_that_needs_as_much_is_tried_after_memory_ran_out(qwen: planner.Dimensions) -> None:
    struck: frozenset[planner.Key] = frozenset()
    sizes = []
    while True:
        try:
            choice = planner.plan(settings("train.batch_size=16"), H100, qwen, (2048,), struck).choice
        except planner.DoesNotFit:
            break
        sizes.append(choice.memory_bytes)
        struck |= {planner.key(choice)}
    assert len(sizes) > 3
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
