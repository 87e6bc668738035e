"""What TRL makes of the rows: left as they are, and packed so that no conversation sees another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rows import jsonl
from trl import SFTConfig, SFTTrainer

from jobs.dataset import IGNORED, Prepared, build
from jobs.settings import DataSettings

MAX_LENGTH = 160


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    rows: list[object] = [{"prompt": f"{n}은 짝수인가요?", "completion": "네, " * (1 + n % 7)} for n in range(40)]
    source = str(jsonl(tmp_path_factory.mktemp("packing") / "d.jsonl", *rows))
    return build(tiny.tokenizer(), DataSettings(source=source, held_out=0.2, max_length=MAX_LENGTH, packing="on"))


def batches(data: Prepared, folder: Path, packing: bool) -> tuple[Any, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    config = SFTConfig(
        output_dir=str(folder),
        packing=packing,
        packing_strategy="bfd",
        max_length=MAX_LENGTH,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = SFTTrainer(tiny.model(len(tokenizer)), config, train_dataset=data.train, processing_class=tokenizer)
    return trainer.model.eval(), list(trainer.get_train_dataloader())


def segments(batch: dict[str, torch.Tensor]) -> list[slice]:
    """Where the conversations of a packed batch stand: positions start again at 0 with each."""
    assert batch["input_ids"].shape[0] == 1
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], batch["input_ids"].shape[1]], strict=True)]


def pairs(rows: list[tuple[list[int], list[int]]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return sorted((tuple(ids), tuple(labels)) for ids, labels in rows)


def test_unpacked_rows_reach_the_model_as_they_were_built(data: Prepared, tmp_path: Path) -> None:
    _, made = batches(data, tmp_path, packing=False)
    seen = []
    for batch in made:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            assert (labels[mask == 0] == IGNORED).all()
            seen.append((ids[mask == 1].tolist(), labels[mask == 1].tolist()))
    assert pairs(seen) == pairs(list(zip(data.train["input_ids"], data.train["labels"], strict=True)))


def test_packed_conversations_give_the_logits_they_give_alone(data: Prepared, tmp_path: Path) -> None:
    model, made = batches(data, tmp_path, packing=True)
    assert sum(len(segments(batch)) for batch in made) == len(data.train)
    assert len(segments(made[0])) > 2
    seen = []
    with torch.inference_mode():
        for batch in made:
            packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
            for where in segments(batch):
                ids = batch["input_ids"][:, where]
                alone = model(input_ids=ids).logits[0]
                assert torch.allclose(packed[where], alone, atol=1e-5, rtol=0)
                seen.append((ids[0].tolist(), batch["labels"][0, where].tolist()))
    assert pairs(seen) == pairs(list(zip(data.train["input_ids"], data.train["labels"], strict=True)))


def test_without_positions_packed_conversations_would_see_each_other(data: Prepared, tmp_path: Path) -> None:
    """Shows that the test above can fail: the same comparison, with positions that run on."""
    model, made = batches(data, tmp_path, packing=True)
    with torch.inference_mode():
        leaking = model(input_ids=made[0]["input_ids"]).logits[0]
        for where in segments(made[0])[1:]:
            alone = model(input_ids=made[0]["input_ids"][:, where]).logits[0]
            assert (leaking[where] - alone).abs().max() > 1e-3


def test_a_changed_neighbour_changes_nothing(data: Prepared, tmp_path: Path) -> None:
    model, made = batches(data, tmp_path, packing=True)
    batch = made[0]
    first, *others = segments(batch)
    changed = batch["input_ids"].clone()
    changed[:, first] = changed[:, first].flip(1)
    with torch.inference_mode():
        before, after = (
            model(input_ids=ids, position_ids=batch["position_ids"]).logits[0] for ids in (batch["input_ids"], changed)
        )
    assert (before[first] - after[first]).abs().max() > 1e-3
    for where in others:
        assert torch.equal(before[where], after[where])
