"""The tree of settings: closed, bounded, explained, and free of credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from jobs.errors import UsageError
from jobs.settings import Settings, from_yaml, load, to_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def sections(section: type[BaseModel]) -> list[type[BaseModel]]:
    below = [f.annotation for f in section.model_fields.values()]
    return [section, *(s for a in below if isinstance(a, type) and issubclass(a, BaseModel) for s in sections(a))]


def test_every_field_is_described() -> None:
    fields = {f"{s.__name__}.{name}": field for s in sections(Settings) for name, field in s.model_fields.items()}

    assert len(fields) > 40
    assert [name for name, field in fields.items() if not field.description] == []


def test_overrides_lie_over_the_file_and_the_last_one_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b c.yaml"
    first.write_text("train: {epochs: 2, seed: 1}\nlora: {rank: 4}\n")
    second.write_text("train: {seed: 2}\n")

    tree = load(first, f"lora.rank=8 '@{second}' train.epochs=3")

    assert (tree.train.epochs, tree.train.seed, tree.lora.rank) == (3, 2, 8)
    assert load(first, f"'@{second}' train.seed=5").train.seed == 5
    assert load(first, f"train.seed=5 '@{second}'").train.seed == 2


def test_tree_survives_yaml() -> None:
    tree = load(None, "lora.target_modules=[q_proj,v_proj] data.source=한국어.jsonl data.packing=on train.max_steps=3")

    assert from_yaml(to_yaml(tree), "copy") == tree
    assert yaml.safe_load(to_yaml(tree)).keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_valid(config: Path) -> None:
    load(config)


def test_on_and_off_are_words_and_true_is_not() -> None:
    assert load(None, "data.packing=off").data.packing == "off"
    assert load(None, "model.revision=no").model.revision == "no"
    assert load(None, "train.gradient_checkpointing=true").train.gradient_checkpointing == 1


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().train.seed = 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("train.epoch=1", "train.epoch: unknown key; did you mean epochs?"),
        ("trian.epochs=1", "trian: unknown key; did you mean train?"),
        ("lora.zzzz=1", "lora.zzzz: unknown key; known keys: method, rank,"),
        ("lora.rank=0", "lora.rank: should be greater than or equal to 1 (got 0)"),
        ("lora.dropout=1", "lora.dropout: should be less than 1 (got 1)"),
        ("train.epochs=0", "train.epochs: should be greater than 0"),
        ("train.learning_rate=.nan", "train.learning_rate: should be a finite number"),
        ("train.learning_rate=.inf", "train.learning_rate: should be"),
        ("train.batch_size=two", "train.batch_size: should be a valid integer"),
        ("model.dtype=float16", "model.dtype: should be 'auto', 'bfloat16' or 'float32'"),
        ("train=3", "train: should be a valid dictionary"),
        ("train", "SET 'train': expected section.key=value"),
        ("train.epochs.x=1", "train.epochs"),
        ("train.seed=1 train.seed.x=1", "seed is a value, not a section"),
        ("data.source='a", "No closing quotation"),
        ("@no-such.yaml", "no-such.yaml: no such config file"),
        ("lora.method=full model.quantization=4bit", "set model.quantization=none"),
        ("lora.method=full lora.rank_stabilized=true", "has no meaning with lora.method=full"),
        ("scaling.shard=on", "set 2 or more, or shard=off"),
        ("scaling.shard=on scaling.workers=2 model.quantization=8bit", "set model.quantization=none"),
    ],
)
def test_what_is_wrong_is_named(overrides: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, overrides)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_wrong_keys_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"lora\.rank: .*; train\.seed: "):
        load(None, "lora.rank=0 train.seed=-1")


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "just text", "\xff"])
def test_file_that_is_no_tree_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(UsageError) as caught:
        load(file)

    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["tracking.uri", "storage.root", "data.source", "model.source"])
def test_credentials_are_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key}: must not hold credentials") as caught:
        load(None, f"{key}=https://user:hunter2-hunter2@host/x")

    assert "hunter2-hunter2" not in str(caught.value)
