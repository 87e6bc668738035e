"""Bits per byte against a sum made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rows import ASKED, jsonl

from jobs.errors import IntegrityError, UsageError
from jobs.evaluation.benchmark import Item, Loaded, spread
from jobs.evaluation.held_out import HeldOut
from jobs.evaluation.settings import EvaluateSettings
from jobs.evaluation.statistics import Resampling, estimate
from jobs.settings import DataSettings

ANSWER = "서울입니다."
TEXT = "대한민국의 수도는 서울입니다."
HOW = Resampling(100, 0.95, 1)


def loaded(**tokenizer: Any) -> Loaded:
    torch.manual_seed(3)
    made = tiny.tokenizer(**tokenizer)
    return Loaded("tiny", tiny.model(len(made)), made)


def run(model: Loaded, file: Path, **options: Any) -> list[Item]:
    return benchmark(file, **options).run(model, lambda *_: None)


def benchmark(file: Path, **options: Any) -> HeldOut:
    return HeldOut(EvaluateSettings(held_out=str(file), **options), DataSettings())


def nats(model: Loaded, context: list[int], scored: list[int]) -> float:
    with torch.inference_mode():
        rows = model.model(torch.tensor([context + scored])).logits[0].double().log_softmax(-1)
    return -sum(float(rows[len(context) + i - 1, token]) for i, token in enumerate(scored))


def test_answer_by_hand(tmp_path: Path) -> None:
    model = loaded()
    ids = model.tokenizer("<|im_start|>user\n수도는?<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    answer = model.tokenizer(ANSWER + "<|im_end|>")["input_ids"]

    (item,) = run(model, jsonl(tmp_path / "rows.jsonl", {"messages": ASKED}))

    expected = nats(model, ids, answer)
    assert item.values["nats"] == pytest.approx(expected, rel=1e-5)
    assert item.values["tokens"] == len(answer)
    assert item.values["bytes"] == 16  # five syllables of three bytes, and a full stop
    figures = {metric.name: estimate(metric, [item], HOW).value for metric in HeldOut.metrics}
    assert figures["bits_per_byte"] == pytest.approx(expected / math.log(2) / 16, rel=1e-5)
    assert figures["loss"] == pytest.approx(expected / len(answer), rel=1e-5)
    assert figures["perplexity"] == pytest.approx(math.exp(expected / len(answer)), rel=1e-5)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_text_is_scored_from_its_first_token_to_its_end(tmp_path: Path, adds_bos: bool) -> None:
    model = loaded(adds_bos=adds_bos)
    tokens = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    before = model.tokenizer.bos_token_id if adds_bos else model.tokenizer.eos_token_id

    (item,) = run(model, jsonl(tmp_path / "rows.jsonl", {"text": TEXT}))

    assert item.values["nats"] == pytest.approx(
        nats(model, [before], [*tokens, model.tokenizer.eos_token_id]), rel=1e-5
    )
    assert item.values["bytes"] == len(TEXT.encode())


def test_long_text_is_one_item_with_all_its_pieces(tmp_path: Path) -> None:
    model = loaded()
    text = "한글은 세종대왕이 만들었습니다. " * 20
    tokens = model.tokenizer(text, add_special_tokens=False)["input_ids"]

    (item,) = run(model, jsonl(tmp_path / "rows.jsonl", {"text": text}), max_length=32)

    assert len(tokens) > 64
    assert item.values["tokens"] == len(tokens) + 1
    assert item.values["bytes"] == len(text.encode())


def test_bytes_do_not_depend_on_template_or_tokenizer(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "rows.jsonl", {"messages": [*ASKED, *ASKED]})
    templates = [tiny.CHATML, tiny.HEADERS, tiny.BRACKETS, tiny.UNCLOSED, None]

    found = [run(loaded(template=template), file)[0] for template in templates]

    assert {item.values["bytes"] for item in found} == {32}
    assert len({item.values["nats"] for item in found}) == len(templates)


def test_long_conversation_is_left_out_whole(tmp_path: Path) -> None:
    long = [ASKED[0], {"role": "assistant", "content": ANSWER * 50}]
    file = jsonl(tmp_path / "rows.jsonl", {"messages": ASKED}, {"messages": long})

    assert len(benchmark(file)) == 2
    assert len(run(loaded(), file, max_length=64)) == 1
    with pytest.raises(UsageError, match="every held-out row is longer than 16 tokens"):
        run(loaded(), file, max_length=16)


def test_copies_count_once(tmp_path: Path) -> None:
    assert len(benchmark(jsonl(tmp_path / "rows.jsonl", {"text": TEXT}, {"text": TEXT}, {"text": "다른 글"}))) == 2


def test_logits_that_are_not_finite(tmp_path: Path) -> None:
    model = loaded()
    with torch.no_grad():
        model.model.get_output_embeddings().weight[5] = float("nan")

    with pytest.raises(IntegrityError, match=r"tiny: its logits for .*rows.jsonl:1 are not finite"):
        run(model, jsonl(tmp_path / "rows.jsonl", {"messages": ASKED}))


def test_a_limit_is_spread_over_the_items() -> None:
    assert spread("aabbccdd", 4) == list("abcd")
    assert spread("abc", None) == spread("abc", 9) == list("abc")
