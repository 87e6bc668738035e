"""One clear line, with file, row and remedy, for each thing that can be wrong with data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from rows import ASKED, ROW, jsonl, read

from jobs.dataset import check
from jobs.errors import UsageError
from jobs.settings import DataSettings


def one_line(caught: pytest.ExceptionInfo[UsageError]) -> str:
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("row", "where", "what"),
    [
        ({"messages": [ASKED[0]]}, "", "no assistant turn"),
        ({"messages": []}, "", "no assistant turn"),
        ({"messages": "안녕"}, "", "messages must be a list of turns"),
        (
            {"messages": [ASKED[0], {"role": "tool", "content": "3"}]},
            "",
            "messages[1].role is 'tool'; known roles are system",
        ),
        ({"messages": [ASKED[0], {"role": None, "content": "3"}]}, "", "messages[1].role is None"),
        (
            {"messages": [ASKED[0], {"role": "assistant", "content": 3}]},
            "",
            "messages[1].content must be text, found int",
        ),
        ({"messages": [ASKED[0], {"role": "assistant", "content": None}]}, "", "must be text, found NoneType"),
        ({"messages": [ASKED[0], {"role": "assistant", "content": " \n"}]}, "", "messages[1].content is empty"),
        ({"messages": [ASKED[0], {"role": "assistant", "text": "네"}]}, "", "messages[1] has the keys role, text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, ASKED[1]]},
            "",
            "messages[0].content has a part of type image",
        ),
        ({"messages": [ASKED[0], {"role": "assistant", "content": "\ud83d"}]}, "", "half of a surrogate pair"),
        ({"질문": "수도는?", "답": "서울"}, "", "columns 질문, 답 fit no known format (messages: messages; sharegpt:"),
        ({"text": 3}, "", "text must be text, found int"),
        ({"text": ""}, "", "text is empty"),
        ({"prompt": "1+1은?", "completion": None}, "", "completion is empty"),
        ({"instruction": "해", "input": ["x"], "output": "네"}, "", "input must be text, found list"),
    ],
)
def test_a_row_that_is_no_conversation(tmp_path: Path, row: object, where: str, what: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("\n" + json.dumps(row) + "\n")
    with pytest.raises(UsageError) as caught:
        read(path)
    assert one_line(caught).startswith(f"{path}:2: ")
    assert what in one_line(caught)


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("d.jsonl", b"", "", "the file is empty"),
        ("d.jsonl", b" \n\n", "", "the file is empty"),
        ("d.json", b"[]", "", "holds no rows"),
        ("d.jsonl", b'{"text": "a"}\n{"text": "b"\n', ":2", "broken JSON at column"),
        ("d.jsonl", b'{"text": "a"}\n["b"]\n', ":2", "expected an object with named columns, found list"),
        ("d.json", b'[\n{"text": "a"},\n{"text": }]', ":3", "broken JSON at column 10"),
        ("d.json", b'[{"text": "a"}, 7]', " row 2", "expected an object with named columns, found int"),
        ("d.jsonl", b"[" * 100_000, ":1", "cannot be read as JSON"),
        (
            "d.jsonl",
            b'{"text": "a"}\n{"prompt": "b", "completion": "c"}',
            ":2",
            "columns prompt, completion, but the format is text",
        ),
        ("d.csv", "질문,답\n수도?,서울\n".encode(), ":2", "columns 질문, 답 fit no known format"),
        ("d.csv", b"prompt,completion\na,b\nc,d,e\n", ":3", "3 cells, but the header has 2 columns"),
        ("d.csv", b"prompt,completion\na,b\n\nc\n", ":4", "1 cells, but the header has 2 columns"),
        ("d.csv", b'prompt,completion\na,"b\n', ":2", "broken CSV: unexpected end of data"),
        ("d.csv", b'prompt,"completion', ":1", "broken CSV"),
        ("d.csv", b"prompt,completion\n", "", "holds no rows"),
        ("d.parquet", b"PAR1 this is not Parquet PAR1", "", "corrupt Parquet"),
        ("d.xlsx", b"PK", "", "no data files; those end in .jsonl, .json, .csv, .parquet, .txt"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, where: str, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert one_line(caught).startswith(f"{path}{where}: ")
    assert what in one_line(caught)


def test_a_cut_off_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW] * 100), path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for broken in (
        whole[:middle],
        whole[: len(whole) - 40] + whole[-8:],
        b"PAR1" + bytes(middle) + whole[middle + 4 :],
    ):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match="corrupt Parquet") as caught:
            read(path)
        assert one_line(caught).startswith(f"{path}: ")


KOREAN_LINES = '{"text": "ascii"}\n{"text": "대한민국의 수도는 서울입니다."}\n'


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            KOREAN_LINES.encode("cp949"),
            ":2: the text is CP949 (EUC-KR), not UTF-8 (from byte 28 on); convert it: iconv -f CP949",
        ),
        (KOREAN_LINES.encode("euc-kr"), ":2: the text is CP949"),
        ("뷁쉙\n".encode("cp949"), ":1: the text is CP949"),  # not in EUC-KR
        (KOREAN_LINES.encode() + '{"text": "한글"}'.encode("cp949"), ":3: the text is CP949"),
        (b"\xef\xbb\xbf" + KOREAN_LINES.encode("cp949"), ":2: the text is CP949 (EUC-KR), not UTF-8 (from byte 31 on)"),
        (
            KOREAN_LINES.encode("utf-16"),
            ":1: the text is UTF-16, not UTF-8 (from byte 0 on); convert it: iconv -f UTF-16 ",
        ),
        (KOREAN_LINES.encode("utf-16-be"), "the text is UTF-16"),
        (KOREAN_LINES.encode("utf-16-le"), "the text is UTF-16"),
        ('{"text": "a"}'.encode("utf-16-le"), ":1: the text is UTF-16"),
        (b'{"text": "caf\xe9"}', ":1: not UTF-8: byte 0xe9 at offset 13; save the file as UTF-8"),
        (KOREAN_LINES.encode("shift-jis", "ignore") + b"\xff", "not UTF-8"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    for name in ("d.jsonl", "d.csv", "d.txt", "d.json"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read(path)
        assert what in one_line(caught)
        assert one_line(caught).startswith(f"{path}:")


def test_the_offset_is_where_the_first_wrong_byte_is(tmp_path: Path) -> None:
    content = "﻿".encode() + b'{"text": "ok"}\n{"text": "' + "한글".encode("cp949") + b'"}\n'
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=rf"from byte {content.index('한'.encode('cp949'))} on"):
        read(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("nowhere.jsonl", "no such file or folder"),
        ("empty", "no data files"),
        ("only-hidden", "no data files"),
        ("*.parquet", "no data files"),
        ("http://example.com/d.jsonl", "unknown scheme http://"),
    ],
)
def test_an_address_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-hidden").mkdir()
    jsonl(tmp_path / "only-hidden" / ".d.jsonl", ROW)
    with pytest.raises(UsageError, match=what) as caught:
        read(source)
    assert source in one_line(caught)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", ROW)
    path.chmod(0)
    with pytest.raises(Exception, match="let this user read it"):
        read(path)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"text": "같은 글"}] * 5, "all 5 rows hold the same content"),
        ([{"text": "글 1"}, {"text": "글 2"}], "no held-out row: data.held_out=0.1 of 2 rows by their hash is none"),
    ],
)
def test_a_side_without_rows(tmp_path: Path, rows: list[object], what: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", *rows)
    with pytest.raises(UsageError) as caught:
        check(DataSettings(source=str(path)))
    assert one_line(caught).startswith(f"{path}: {what}")
