"""What the datasheet's figures are made of."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tiny
from korean import paragraphs

from jobs import models
from jobs.corpus.outcome import Outcome, overlap_by_file
from jobs.corpus.tally import Tally, length_classes
from jobs.corpus.tokens import measure
from jobs.errors import UsageError
from jobs.settings import ModelSettings


def test_tallies_add_up_and_keep_the_first_examples() -> None:
    parts = []
    for shard in range(3):
        tally = Tally(rows=10, kept=7)
        for number in range(2):
            tally.drop("too_short", f"f:{shard}{number}", "9 < 50", "글 " * 300)
        tally.drop("broken", f"g:{shard}", "why", "글")
        tally.masked.update({"email": 2})
        parts.append(json.loads(json.dumps(tally.as_dict())))

    total = Tally.total(parts)

    assert (total.rows, total.kept) == (30, 21)
    assert total.dropped == {"too_short": 6, "broken": 3}
    assert total.masked == {"email": 6}
    assert [example[0] for example in total.examples["too_short"]] == ["f:00", "f:01", "f:10"]
    assert len(total.examples["too_short"][0][2]) == 161


def test_length_percentiles_are_those_of_the_rows() -> None:
    rng = random.Random(1)
    lengths = [int(10 ** rng.uniform(1.5, 4)) for _ in range(1_000)]
    shards = [{"lengths": length_classes(np.array(part, np.uint32))} for part in (lengths[:10], lengths[10:])]
    outcome = Outcome([], Tally(), {}, [], shards, measure(tiny.tokenizer().backend_tokenizer, []))
    assert sum(outcome.lengths) == 1_000
    for share in (0.1, 0.5, 0.9):
        exact = sorted(lengths)[int(share * 1_000) - 1]
        assert exact <= outcome.length_percentile(share) <= exact * 10 ** (1 / 20) + 1


def test_tokens_are_counted_as_the_model_counts_them() -> None:
    tokenizer = tiny.tokenizer()
    texts = [*paragraphs()[:20], "no Hangul here"]
    found = measure(tokenizer.backend_tokenizer, texts)
    assert list(found.tokens) == [len(ids) for ids in tokenizer(texts[:-1], add_special_tokens=False)["input_ids"]]
    assert found.figures()["tokens_per_word"] == sum(found.tokens) / sum(len(text.split()) for text in texts[:-1])


def test_tokenizers_that_cannot_be_read(tmp_path: Path) -> None:
    tiny.tokenizer().save_pretrained(tmp_path)
    read = models.read_fast_tokenizer(ModelSettings(), tmp_path)
    assert read.encode("안녕").ids == tiny.tokenizer()("안녕")["input_ids"]
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer\.json cannot be read"):
        models.read_fast_tokenizer(ModelSettings(), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="cannot be loaded"):
        models.read_fast_tokenizer(ModelSettings(), tmp_path)


def test_overlaps_are_named_by_set_in_the_order_of_lines() -> None:
    overlaps = {"b.jsonl:10": 1, "a.jsonl:3": 2, "b.jsonl:9": 4}
    assert overlap_by_file(overlaps) == {"a.jsonl": (2, ["3"]), "b.jsonl": (5, ["9", "10"])}
