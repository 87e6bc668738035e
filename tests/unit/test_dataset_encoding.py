"""Rows to token ids and labels: exactly what the assistant says is trained, whatever the chat template looks like."""

from __future__ import annotations

import random
import time
from itertools import groupby

import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from jobs.dataset.conversation import Conversation, Message
from jobs.dataset.encoding import IGNORED, Encoded, encode
from jobs.dataset.rendering import ensure_chat_template
from jobs.errors import UsageError

TEMPLATES = {
    # template, end of each turn, what the model writes before its last answer, has a system role
    "chatml": (tiny.CHATML, "<|im_end|>", "", True),
    "marked": (tiny.MARKED_CHATML, "<|im_end|>", "", True),
    "reasoning": (tiny.REASONING, "<|im_end|>", "<think>\n\n</think>\n\n", True),
    "headers": (tiny.HEADERS, "<|eot|>", "", True),
    "no-system": (tiny.NO_SYSTEM, "</turn>", "", False),
    "brackets": (tiny.BRACKETS, "</s>", "", True),
    "none": (None, "</s>", "", True),
}


def chat(*contents: str, system: str = "", origin: str = "f:1") -> Conversation:
    """A conversation of alternating user and assistant turns."""
    turns = [Message("assistant" if index % 2 else "user", content) for index, content in enumerate(contents)]
    return Conversation((*([Message("system", system)] if system else []), *turns), None, origin)


def text(content: str) -> Conversation:
    return Conversation((), content, "f:1")


def trained(tokenizer: PreTrainedTokenizerFast, row: Encoded) -> list[str]:
    """The text of each run of tokens with a label."""
    assert len(row.labels) == len(row.input_ids)
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))
    runs = groupby((label for label in row.labels), key=lambda label: label != IGNORED)
    return [tokenizer.decode(list(run)) for is_trained, run in runs if is_trained]


def only(tokenizer: PreTrainedTokenizerFast, row: Conversation, max_length: int = 4096) -> Encoded:
    [encoded] = encode(tokenizer, [row], max_length, "truncate").rows
    return encoded


def templated(name: str) -> tuple[PreTrainedTokenizerFast, str, str, bool]:
    template, end, before_last, has_system = TEMPLATES[name]
    tokenizer = tiny.tokenizer(template, adds_bos=name in ("headers", "no-system"))
    ensure_chat_template(tokenizer)
    return tokenizer, end, before_last, has_system


WORDS = [
    "서울",
    "입니다.",
    "ㅋㅋ",
    "🙂👍🏽",
    "assistant",
    "<b>",
    "[INST]",
    "user\n",
    "return a + b",
    "한글",
    "\n\n",
    "각",
    "—",
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_is_what_the_assistant_says_and_the_end_of_its_turn(name: str) -> None:
    tokenizer, end, before_last, has_system = templated(name)
    generator = random.Random(0)

    def content() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(1, 8))).strip() or "네"

    rows = [
        chat(
            *(content() for _ in range(2 * generator.randint(1, 4))),
            system=content() if has_system and generator.random() < 0.5 else "",
        )
        for _ in range(200)
    ]
    encoded = encode(tokenizer, rows, 4096, "truncate").rows
    assert len(encoded) == len(rows)
    for row, result in zip(rows, encoded, strict=True):
        answers = [m.content + end for m in row.messages if m.role == "assistant"]
        answers[-1] = before_last + answers[-1]
        if name == "brackets":  # its answers follow a space, which a tokenizer may join to the first word
            assert [run.removeprefix(" ") for run in trained(tokenizer, result)] == answers
        else:
            assert trained(tokenizer, result) == answers


@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_the_whole_rendered_text(name: str) -> None:
    tokenizer, *_ = templated(name)
    row = chat("대한민국의 수도는?", "서울입니다.", "고마워요", "천만에요.")
    messages = [{"role": m.role, "content": m.content} for m in row.messages]
    expected = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert only(tokenizer, row).input_ids == expected


@pytest.mark.parametrize("name", ["headers", "no-system"])
def test_bos_is_written_once(name: str) -> None:
    tokenizer, *_ = templated(name)
    for row in (chat("안녕", "네"), text("대한민국의 수도는 서울입니다.")):
        assert only(tokenizer, row).input_ids.count(tokenizer.bos_token_id) == 1


def test_default_template_writes_the_bos_that_the_tokenizer_wants_and_is_left_with_it() -> None:
    tokenizer = tiny.tokenizer(None, adds_bos=True)
    ensure_chat_template(tokenizer)
    row = only(tokenizer, chat("안녕", "네"))
    assert tokenizer.decode(row.input_ids) == "<s>### User:\n안녕\n\n### Assistant:\n네</s>"
    assert tokenizer.chat_template


def test_an_own_template_is_never_replaced() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML)
    ensure_chat_template(tokenizer)
    assert tokenizer.chat_template == tiny.CHATML


def test_reasoning_of_the_last_answer_is_trained_and_that_of_earlier_ones_is_not_there() -> None:
    tokenizer, *_ = templated("reasoning")
    row = chat("1+1?", "<think>\n더한다\n</think>\n\n2", "2+2?", "<think>\n또 더한다\n</think>\n\n4")
    assert trained(tokenizer, only(tokenizer, row)) == [
        "2<|im_end|>",
        "<think>\n또 더한다\n</think>\n\n4<|im_end|>",
    ]


def test_the_same_text_said_by_the_user_is_not_trained() -> None:
    tokenizer, *_ = templated("chatml")
    row = only(tokenizer, chat("서울입니다.", "서울입니다.", "서울입니다.", "서울입니다."))
    assert trained(tokenizer, row) == ["서울입니다.<|im_end|>"] * 2
    assert tokenizer.decode(row.input_ids).count("서울입니다.") == 4


def test_spaces_around_an_answer_are_trained_where_the_template_keeps_them() -> None:
    row = chat("코드", "    return a + b  \n")
    kept, trimmed = tiny.tokenizer(tiny.CHATML), tiny.tokenizer(tiny.HEADERS)
    assert trained(kept, only(kept, row))[0].lstrip("\n") == "    return a + b  \n<|im_end|>"
    assert trained(trimmed, only(trimmed, row)) == ["return a + b<|eot|>"]


def test_where_the_template_never_ends_the_turn_the_model_still_learns_to_stop() -> None:
    tokenizer = tiny.tokenizer(tiny.UNCLOSED)
    row = only(tokenizer, chat("안녕", "네", "잘 가", "또 봐요"))
    assert row.input_ids[-1] == row.labels[-1] == tokenizer.eos_token_id
    assert [run.strip() for run in trained(tokenizer, row)] == ["네", "또 봐요\n</s>"]


@pytest.mark.parametrize(
    ("template", "row", "expected"),
    [
        (tiny.NO_SYSTEM, chat("안녕", "네", system="너는 비서다", origin="d.jsonl:7"), "System role not supported"),
        (tiny.NO_SYSTEM, Conversation((Message("assistant", "네"),), None, "d.jsonl:7"), "Roles must alternate"),
        (
            tiny.CHATML.replace("m['content']", "m['content'] | upper"),
            chat("hi", "hello", origin="d.jsonl:7"),
            "rewrites",
        ),
        (
            "{% for m in messages %}{{ m['content'] if m['role'] == 'user' else '' }}{% endfor %}",
            chat("안녕", "네", origin="d.jsonl:7"),
            "leaves nothing of turn 2",
        ),
        (
            "{% for m in messages %}{{ m['content'] }}{% if false %}{% generation %}{% endgeneration %}{% endif %}"
            "{% endfor %}",
            chat("안녕", "네", origin="d.jsonl:7"),
            "marks nothing",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_an_error_that_names_the_row(
    template: str, row: Conversation, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        encode(tiny.tokenizer(template), [row], 4096, "truncate")
    assert str(caught.value).startswith("d.jsonl:7: ")
    assert "\n" not in str(caught.value)


def test_text_is_trained_from_end_to_end_and_cut_into_consecutive_rows() -> None:
    content = "대한민국의 수도는 서울입니다. 한글은 세종대왕이 만들었습니다. " * 10
    for tokenizer, prefix in ((tiny.tokenizer(), []), (tiny.tokenizer(adds_bos=True), [1])):
        rows = encode(tokenizer, [text(content)], 16, "drop").rows
        assert prefix in ([], [tokenizer.bos_token_id])
        assert len(rows) > 3
        assert all(len(row.input_ids) == 16 for row in rows[:-1])
        assert all(row.input_ids[: len(prefix)] == prefix for row in rows)
        body = [token for row in rows for token in row.input_ids[len(prefix) :]]
        assert tokenizer.decode(body) == content + "</s>"
        assert [token for row in rows for token in row.labels if token != IGNORED] == body


def test_a_last_piece_of_text_too_short_to_predict_anything_is_left_out() -> None:
    tokenizer = tiny.tokenizer()
    assert len(tokenizer("#" * 32)["input_ids"]) == 32
    for count, lengths in ((31, [16, 16]), (32, [16, 16]), (33, [16, 16, 2])):  # and EOS
        rows = encode(tokenizer, [text("#" * count)], 16, "truncate").rows
        assert [len(row.input_ids) for row in rows] == lengths


def test_overlong_rows_are_cut_or_dropped_as_asked() -> None:
    tokenizer = tiny.tokenizer()
    short, long_answer, long_question = chat("안", "네"), chat("안", "네 " * 50), chat("안 " * 50, "네")
    rows = [short, long_answer, long_question]
    cut = encode(tokenizer, rows, 32, "truncate")
    assert [len(row.input_ids) for row in cut.rows] == [len(only(tokenizer, short).input_ids), 32]
    assert cut.rows[1].input_ids == only(tokenizer, long_answer).input_ids[:32]
    assert (cut.truncated, dict(cut.dropped)) == (1, {"answer begins beyond data.max_length": 1})
    dropped = encode(tokenizer, rows, 32, "drop")
    assert [row.conversation for row in dropped.rows] == [short]
    assert (dropped.truncated, dict(dropped.dropped)) == (0, {"longer than data.max_length": 2})


def test_rows_beyond_one_batch_of_the_tokenizer_keep_order_and_origin() -> None:
    tokenizer = tiny.tokenizer()
    rows = [chat("질문", str(number), origin=f"f:{number}") for number in range(2_003)]
    encoded = encode(tokenizer, rows, 64, "truncate").rows
    assert [row.conversation for row in encoded] == rows
    assert [trained(tokenizer, row) for row in encoded[998:1002]] == [[f"{n}<|im_end|>"] for n in range(998, 1002)]


def test_500_rows_encode_in_two_seconds() -> None:
    tokenizer = tiny.tokenizer()
    rows = [chat("한글은 누가 만들었나요? " * 10, "세종대왕이 만들었습니다. " * 20) for _ in range(500)]
    start = time.process_time()
    encode(tokenizer, rows, 512, "truncate")
    assert time.process_time() - start < 2
