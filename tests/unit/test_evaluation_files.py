"""The shipped evaluation sets, their checks, and files that are not as they must be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from pydantic import TypeAdapter
from rows import jsonl

from jobs.errors import UsageError
from jobs.evaluation.checks import Check, hangul_share, holds, normalised, repetition
from jobs.evaluation.choices import choices, encode, judge
from jobs.evaluation.files import parse_lines, read_file
from jobs.evaluation.kmmlu_cot import kmmlu_cot
from jobs.evaluation.prompts import Prompt, Prompts
from jobs.evaluation.prompts import judge as judge_answer
from jobs.evaluation.registry import check_names
from jobs.evaluation.settings import EvaluateSettings
from jobs.generation import Answer

QUESTION = {"id": "a-1", "subject": "a", "question": "1 + 1은?", "choices": ["1", "2", "3", "4"], "answer": 1}
PROMPT = {
    "id": "a-1",
    "kind": "a",
    "prompt": "인사해 주세요.",
    "checks": [{"type": "contains", "value": "안녕"}],
    "reference": "안녕하세요.",
}


def prompts() -> list[Prompt]:
    address = EvaluateSettings().prompts
    return parse_lines(read_file(address, ""), address, Prompt)


def test_every_shipped_reference_passes_and_idle_answers_fail() -> None:
    for prompt in prompts():
        assert judge_answer(prompt, Answer(prompt.reference, False)).values["passed"] == 1, prompt.id
        for idle in ("", prompt.prompt, "죄송하지만 도와드릴 수 없습니다."):
            assert judge_answer(prompt, Answer(idle, False)).values["passed"] == 0, (prompt.id, idle)


def test_shipped_questions() -> None:
    benchmark = choices(EvaluateSettings())

    assert len(benchmark) == 180
    assert set(Counter(q.subject for q in benchmark.questions).values()) == {30}
    assert benchmark.preview.startswith("질문: 고구려의")
    assert benchmark.preview.endswith("정답: 장수왕")
    assert len(benchmark.inputs["jobs/data/eval/choices_ko.jsonl"]) == 64


def test_exam_questions_in_the_harness_wheel() -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (make harness)")
    benchmark = kmmlu_cot(EvaluateSettings())

    assert len(benchmark) == 225
    assert len({q.subject for q in benchmark.questions}) == 45
    assert {q.answer for q in benchmark.questions} == {0, 1, 2, 3}
    first = benchmark.questions[0]
    assert (first.id, first.answer, first.choices[2]) == ("accounting-1", 2, "￦1,020,000")
    assert "A. ￦970,000\nB. ￦990,000" in benchmark.preview
    assert benchmark.preview.endswith("정답： C")


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        ({"type": "min_hangul_share", "value": 0.5}, "가나 ab", "가 ab"),
        ({"type": "max_repetition", "value": 0.1}, "abcdefgh", "abababab"),
        ({"type": "min_syllables", "value": 2}, "가b나", "가bㄴ"),
        ({"type": "max_syllables", "value": 1}, "가ㄴ", "가나"),
        ({"type": "line_count", "value": 2}, "가\n\n나", "가"),
        ({"type": "bullet_count", "value": 2}, "- 가\n 2. 나\n다", "-가\n- 나"),
        ({"type": "contains", "value": "나"}, "가나", "가"),
        ({"type": "not_contains", "value": "나"}, "가", "가나"),
        ({"type": "starts_with", "value": "가"}, "가나", "나가"),
        ({"type": "ends_with", "value": "가"}, "나가", "가나"),
        ({"type": "regex", "value": r"^\d{2}$"}, "12", "123"),
        ({"type": "json_keys", "value": ["가"]}, '```json\n{"가": 1}\n```', '{"가": 1, "나": 2}'),
        ({"type": "json_keys", "value": ["가"]}, '{"가": [1]}', '["가"]'),
        ({"type": "json_keys", "value": []}, "{}", "[" * 100_000),
    ],
)
def test_checks(check: dict[str, Any], passes: str, fails: str) -> None:
    made = TypeAdapter(Check).validate_python(check)

    assert holds(made, passes)
    assert not holds(made, fails)


def test_measures_of_an_answer() -> None:
    assert normalised("  한국\n") == "한국"
    assert hangul_share("가a ㄱ1") == 0.5
    assert hangul_share(" ") == 0
    assert repetition("abcd") == repetition("가") == 0
    assert repetition("abab" * 50) == pytest.approx(1 - 2 / 197)
    found = judge_answer(Prompt.model_validate(PROMPT), Answer("반가워요", True))
    assert found.values["cut_off"] == 1
    assert found.detail["failed"] == ["contains 안녕"]


def test_likelihood_per_character_and_ties() -> None:
    question = choices(EvaluateSettings()).questions[0].model_copy(update={"answer": 1})

    found = judge(question, [" 가", " 나나나", " 다", " 라"], [-2.0, -3.0, -2.0, -9.0])

    assert (found.values["right"], found.values["right_norm"]) == (0, 1)
    assert found.values["answer_nats"] == 3


def test_answers_are_tokenised_with_the_question() -> None:
    tokenizer = tiny.tokenizer(adds_bos=True)

    rows = encode(tokenizer, "수도는", [" 서울", "!", " 서울입니다."])

    for row, text in zip(rows, [" 서울", "!", " 서울입니다."], strict=True):
        assert row.input_ids == tokenizer("수도는" + text)["input_ids"]
        assert tokenizer.decode(row.input_ids[row.start :]).endswith(text)
        assert tokenizer.decode(row.input_ids[: row.start]).startswith("<s>")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"answer": 4}, ":2: answer: should be less than or equal to 3 (got 4)"),
        ({"answer": "1"}, ":2: answer: should be a valid integer (got '1')"),
        ({"choices": ["1", "2"]}, ":2: choices: List should have at least 4 items"),
        ({"choices": ["1", "1", "2", "3"]}, ":2: choices: two of them are the same"),
        ({"question": ""}, ":2: question: String should have at least 1 character"),
        ({"anwser": 1}, ":2: unknown key anwser; the keys are id, subject, question, choices, answer"),
        ({"answer": ...}, ":2: the key answer is missing; the keys are"),
        ({"id": "a-0"}, ":2: id 'a-0' stands in line 1 already"),
    ],
)
def test_wrong_question(tmp_path: Path, changed: dict[str, Any], line: str) -> None:
    row = {key: value for key, value in (QUESTION | changed).items() if value is not ...}
    file = jsonl(tmp_path / "choices.jsonl", QUESTION | {"id": "a-0"}, row)

    with pytest.raises(UsageError) as error:
        choices(EvaluateSettings(choices=str(file)))
    assert f"{file}{line}" in str(error.value)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"checks": []}, ":1: checks: List should have at least 1 item"),
        ({"checks": [{"type": "is_polite", "value": 1}]}, ":1: checks.0: "),
        ({"checks": [{"type": "regex", "value": "("}]}, "value is not a regular expression"),
        ({"checks": [{"type": "line_count", "value": -1}]}, ":1: checks.0.line_count.value: "),
        ({"checks": [{"type": "max_repetition", "value": 2}]}, ":1: checks.0.max_repetition.value: "),
    ],
)
def test_wrong_prompt(tmp_path: Path, changed: dict[str, Any], line: str) -> None:
    file = jsonl(tmp_path / "prompts.jsonl", PROMPT | changed)

    with pytest.raises(UsageError) as error:
        Prompts(EvaluateSettings(prompts=str(file)))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file_empty_file_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "choices.jsonl"
    settings = EvaluateSettings(choices=str(file))
    for content, line in [
        (None, "evaluate.choices: .*no such file"),
        ("\n", "the file is empty"),
        (json.dumps(QUESTION) + "\n{", ":2: broken JSON"),
        ("[1]", ":1: "),
    ]:
        if content is not None:
            file.write_text(content)
        with pytest.raises(UsageError, match=line):
            choices(settings)


def test_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown benchmark 'choises'; did you mean choices"):
        check_names(EvaluateSettings(benchmarks=("held-out", "choises")))
    with pytest.raises(UsageError, match="known are held-out, choices, prompts, kmmlu-cot, kobest, kmmlu, haerae"):
        check_names(EvaluateSettings(benchmarks=("qqq",)))
