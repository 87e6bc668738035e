"""All of it together: what the trainer, the plan and the report are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from rows import jsonl

from jobs.dataset import IGNORED, Prepared, build
from jobs.errors import UsageError
from jobs.settings import DataSettings


def chats(count: int, answer: str = "답") -> list[object]:
    return [{"prompt": f"질문 {number}", "completion": f"{answer} {number}"} for number in range(count)]


def prepare(tmp_path: Path, rows: list[object], template: str | None = tiny.CHATML, **settings: Any) -> Prepared:
    source = str(jsonl(tmp_path / "d.jsonl", *rows))
    return build(
        tiny.tokenizer(template), DataSettings(source=source, **{"held_out": 0.2, "max_length": 64, **settings})
    )


def test_columns_sides_and_figures_agree(tmp_path: Path) -> None:
    data = prepare(tmp_path, [*chats(50), {"prompt": "긴 글", "completion": "가나다라 " * 60}])
    figures = data.statistics
    assert figures["rows_read"] == 51
    assert figures["rows_truncated"] == 1
    assert figures["rows_dropped"] == {}
    assert len(data.train) + len(data.held_out) == 51
    for side, name in ((data.train, "train"), (data.held_out, "held_out")):
        assert side.column_names == ["input_ids", "labels"]
        lengths = sorted(len(ids) for ids in side["input_ids"])
        assert figures[name]["rows"] == len(side)
        assert figures[name]["tokens"] == sum(lengths)
        assert figures[name]["length_p100"] == lengths[-1]
        assert figures[name]["length_p50"] == lengths[(len(lengths) - 1) // 2]
        assert figures[name]["trained_tokens"] == sum(label != IGNORED for labels in side["labels"] for label in labels)
    assert max(figures[name]["length_p100"] for name in ("train", "held_out")) == 64


def test_a_first_token_is_no_trained_token_as_nothing_predicts_it(tmp_path: Path) -> None:
    data = prepare(tmp_path, [{"text": f"글 {number}"} for number in range(50)])
    figures = data.statistics["train"]
    assert figures["trained_tokens"] == figures["tokens"] - figures["rows"]


def test_the_preview_shows_what_is_trained(tmp_path: Path) -> None:
    data = prepare(
        tmp_path,
        [
            {
                "messages": [
                    {"role": "user", "content": f"안녕 {n}"},
                    {"role": "assistant", "content": "네 , 안녕하세요 !"},
                    {"role": "user", "content": "잘 가"},
                    {"role": "assistant", "content": "또 봐요"},
                ]
            }
            for n in range(20)
        ],
        max_length=256,
    )
    assert data.preview.startswith("<|im_start|>user\n안녕 ")
    assert data.preview.endswith(
        "<|im_end|>\n<|im_start|>assistant\n⟦네 , 안녕하세요 !<|im_end|>⟧\n"
        "<|im_start|>user\n잘 가<|im_end|>\n<|im_start|>assistant\n⟦또 봐요<|im_end|>⟧\n"
    )


def test_prompts_are_held_out_rows_up_to_the_answer(tmp_path: Path) -> None:
    rows = chats(50)
    data = prepare(tmp_path, rows + rows)
    tokenizer = tiny.tokenizer()
    assert len(data.held_out) == 2 * len(data.prompts)  # every row has a copy, which gives no second prompt
    for prompt in data.prompts:
        number = prompt.text.removeprefix("질문 ")
        assert prompt.reference == f"답 {number}"
        rendered = f"<|im_start|>user\n질문 {number}<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(prompt.input_ids) == rendered
        assert any(ids[: len(prompt.input_ids)] == prompt.input_ids for ids in data.held_out["input_ids"])


def test_prompts_of_texts_are_their_first_halves(tmp_path: Path) -> None:
    data = prepare(tmp_path, [{"text": f"{number} 서울은 수도입니다. " * 20} for number in range(20)])
    assert len(data.held_out) > len(data.prompts)
    for prompt in data.prompts:
        assert 28 < len(prompt.input_ids) <= 32
        assert "\ufffd" not in prompt.text + prompt.reference[:1]
        assert prompt.text + prompt.reference.rstrip("\ufffd") in f"{prompt.text.split()[0]} 서울은 수도입니다. " * 20


def test_the_content_hash_knows_the_rows_and_their_order_only(tmp_path: Path) -> None:
    rows = chats(50)
    first = prepare(tmp_path, rows).content_sha256
    assert prepare(tmp_path, rows, template=tiny.HEADERS, max_length=32).content_sha256 == first
    assert prepare(tmp_path, rows[::-1]).content_sha256 != first
    assert prepare(tmp_path, chats(49)).content_sha256 != first


def test_texts_alone_need_no_chat_template(tmp_path: Path) -> None:
    source = str(jsonl(tmp_path / "d.jsonl", *({"text": f"글 {number}"} for number in range(50))))
    tokenizer = tiny.tokenizer(None)
    build(tokenizer, DataSettings(source=source))
    assert tokenizer.chat_template is None


@pytest.mark.parametrize(("packing", "packed"), [("on", True), ("off", False)])
def test_packing_may_be_chosen(tmp_path: Path, packing: str, packed: bool) -> None:
    assert prepare(tmp_path, chats(20), packing=packing).packed is packed


@pytest.mark.parametrize(
    ("overlong", "reason"),
    [("drop", "longer than data.max_length"), ("truncate", "answer begins beyond data.max_length")],
)
def test_all_rows_longer_than_the_limit(tmp_path: Path, overlong: str, reason: str) -> None:
    rows: list[object] = [{"prompt": f"{number} " + "가" * 100, "completion": "답"} for number in range(50)]
    with pytest.raises(UsageError) as caught:
        prepare(tmp_path, rows, max_length=16, overlong=overlong)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/d.jsonl: no training row is left: ")
    assert f"{reason} (16 tokens; the shortest row has " in message
    assert message.endswith("raise data.max_length")


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no EOS token"):
        build(tokenizer, DataSettings(source=str(jsonl(tmp_path / "d.jsonl", *chats(50)))))
