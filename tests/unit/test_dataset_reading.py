"""Files of every kind and format to conversations, and one clear line for each thing that can be wrong with them."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pyarrow.parquet
import pytest
from moto.server import ThreadedMotoServer
from rows import ASKED, ROW, jsonl, read

from jobs.dataset import Conversation, Message
from jobs.dataset.split import split
from jobs.errors import RemoteError, UsageError
from jobs.storage import NotFound


def turns(row: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


# Formats


@pytest.mark.parametrize(
    ("format_name", "row", "expected"),
    [
        ("messages", ROW, [("user", "수도는?"), ("assistant", "서울입니다.")]),
        (
            "messages",
            {"messages": [{"role": "system", "content": " "}, *ASKED, {"role": "user", "content": "고마워"}], "id": 3},
            [("user", "수도는?"), ("assistant", "서울입니다.")],
        ),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "수도"}, {"type": "text", "text": "는?"}]},
                    ASKED[1],
                ]
            },
            [("user", "수도는?"), ("assistant", "서울입니다.")],
        ),
        (
            "sharegpt",
            {
                "conversations": [{"from": "human", "value": "수도는?"}, {"from": "gpt", "value": "서울"}],
                "system": "짧게",
            },
            [("system", "짧게"), ("user", "수도는?"), ("assistant", "서울")],
        ),
        ("sharegpt", {"conversations": ASKED}, [("user", "수도는?"), ("assistant", "서울입니다.")]),
        (
            "alpaca",
            {"instruction": "번역해", "input": "hello", "output": "안녕", "text": "### 번역해 …", "system": None},
            [("user", "번역해\n\nhello"), ("assistant", "안녕")],
        ),
        (
            "alpaca",
            {"instruction": "인사해", "input": "", "output": "안녕", "system": "너는 비서다"},
            [("system", "너는 비서다"), ("user", "인사해"), ("assistant", "안녕")],
        ),
        (
            "prompt-completion",
            {"prompt": "1+1은?", "completion": "2"},
            [("user", "1+1은?"), ("assistant", "2")],
        ),
    ],
)
def test_formats_are_recognised_and_may_be_named(
    tmp_path: Path, format_name: str, row: object, expected: list[tuple[str, str]]
) -> None:
    path = jsonl(tmp_path / "d.jsonl", row)
    for named in ("auto", format_name):
        [conversation] = read(path, format=named)
        assert turns(conversation) == expected
        assert (conversation.text, conversation.origin) == (None, f"{path}:1")


def test_text_column(tmp_path: Path) -> None:
    [row] = read(jsonl(tmp_path / "d.jsonl", {"text": "  들여 쓴 글\n"}))
    assert (row.messages, row.text) == ((), "  들여 쓴 글\n")


def test_decomposed_hangul_is_composed(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "서울입니다.")
    plain, other = read(
        jsonl(tmp_path / "d.jsonl", *({"prompt": "수도?", "completion": c} for c in ("서울입니다.", decomposed)))
    )
    assert other.messages[1] == Message("assistant", "서울입니다.")
    assert plain.digest == other.digest


# Kinds of file


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f'질문 {i}, "인용"\n둘째 줄', "completion": f"답\u2028 {i}"} for i in range(3)]
    jsonl(tmp_path / "a.jsonl", *rows)
    jsonl(tmp_path / "lines.json", *rows)
    (tmp_path / "b.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    (tmp_path / "bom.JSONL").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.jsonl").read_bytes().replace(b"\n", b"\r\n"))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    with (tmp_path / "d.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(rows)
    expected = [row.digest for row in read(tmp_path / "a.jsonl")]
    assert len(set(expected)) == 3
    for path in tmp_path.iterdir():
        assert [row.digest for row in read(path)] == expected, path.name
    assert [row.origin for row in read(tmp_path / "d.csv")] == [f"{tmp_path}/d.csv:{line}" for line in (2, 4, 6)]
    assert read(tmp_path / "b.json")[2].origin == f"{tmp_path}/b.json row 3"
    assert read(tmp_path / "c.parquet")[2].origin == f"{tmp_path}/c.parquet row 3"


def test_nested_messages_survive_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "c.parquet")
    assert turns(read(tmp_path / "c.parquet")[0]) == [("user", "수도는?"), ("assistant", "서울입니다.")]


def test_a_csv_cell_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"text\n{'가' * 200_000}\n", encoding="utf-8")
    assert len(read(tmp_path / "d.csv")[0].text or "") == 200_000


def test_paragraphs_of_plain_text_are_joined_up_to_a_thousand_characters(tmp_path: Path) -> None:
    paragraphs = [f"제{i}조 " + "가" * 390 for i in range(5)]
    path = tmp_path / "law.txt"
    path.write_text("\n" + "\n \n\n".join(paragraphs) + "\n", encoding="utf-8")
    rows = read(path)
    assert [row.text for row in rows] == [
        "\n \n\n".join(paragraphs[:2]),
        "\n \n\n".join(paragraphs[2:4]),
        paragraphs[4],
    ]
    assert [row.origin for row in rows] == [f"{path}:{line}" for line in (2, 8, 14)]


def test_a_long_paragraph_is_parted_at_line_ends_only(tmp_path: Path) -> None:
    lines = ["나" * 600, "다" * 300, "라" * 2_500, "마"]
    (tmp_path / "a.txt").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    assert [row.text for row in read(tmp_path / "a.txt")] == ["\n".join(lines[:2]), lines[2], lines[3]]


# Addresses


def test_folders_and_globs_are_read_in_order_of_path(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("b.jsonl", "sub/a.jsonl", "a.jsonl", "sub/.ipynb_checkpoints/a.jsonl"):
        jsonl(tmp_path / name, {"text": name})
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / "c.txt").write_text("plain")
    assert [row.text for row in read(tmp_path)] == ["a.jsonl", "b.jsonl", "plain", "sub/a.jsonl"]
    assert [row.text for row in read(f"file://{tmp_path}/*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [row.text for row in read(tmp_path / "**" / "a.jsonl")] == ["a.jsonl", "sub/a.jsonl"]


def test_each_file_of_a_folder_may_have_its_own_format(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", ROW)
    jsonl(tmp_path / "b.jsonl", {"prompt": "1+1은?", "completion": "2"})
    assert [len(row.messages) for row in read(tmp_path)] == [2, 2]


def test_relative_addresses_stay_relative_in_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(Path("d.jsonl"), ROW)
    for source in ("d.jsonl", "./d.jsonl", "*.jsonl", "."):
        assert read(source)[0].origin == "d.jsonl:1"


def test_hub_datasets_go_through_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    jsonl(folder / "train.jsonl", ROW)
    jsonl(folder / "test.jsonl", ROW, ROW)
    assert [row.origin for row in read(f"hf:{folder}::test")] == [f"hf:{folder}::test row {n}" for n in (1, 2)]
    assert len(read(f"hf:{folder}")) == 1
    assert (tmp_path / "cache").exists()
    for source, expected in (("hf:", "names no dataset"), (f"hf:{folder}::dev", 'Unknown split "dev"')):
        with pytest.raises(UsageError, match=expected):
            read(source)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    yield client
    server.stop()


def test_s3_files_folders_and_globs(bucket: Any) -> None:
    for name in ("set/b.jsonl", "set/a.jsonl", "set/_SUCCESS"):
        bucket.put_object(Bucket="data", Key=name, Body=json.dumps(ROW).encode())
    bucket.put_object(Bucket="data", Key="set/bad.txt", Body="한글".encode("cp949"))
    assert [row.origin for row in read("s3://data/set/*.jsonl")] == [
        "s3://data/set/a.jsonl:1",
        "s3://data/set/b.jsonl:1",
    ]
    assert read("s3://data/set/a.jsonl")[0].origin == "s3://data/set/a.jsonl:1"
    with pytest.raises(UsageError, match=r"s3://data/set/bad\.txt:1: the text is CP949"):
        read("s3://data/set")
    with pytest.raises(NotFound, match="s3://data/other"):
        read("s3://data/other")


def test_an_s3_that_does_not_answer_is_no_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(RemoteError, match=r"s3://data/d\.jsonl"):
        read("s3://data/d.jsonl")


# Split


def rows_of(count: int) -> list[Conversation]:
    return [Conversation((), f"글 {number}", f"f:{number}") for number in range(count)]


def test_a_rows_side_depends_on_its_content_alone() -> None:
    rows = rows_of(2_000)
    train, held_out = split(rows, 0.1, "f")
    assert len(train) + len(held_out) == 2_000
    assert 150 < len(held_out) < 250  # binomial: 200 ± 13
    held_out_texts = {row.text for row in held_out}
    shuffled = random.Random(1).sample(rows + [Conversation((), row.text, "copy") for row in rows[:500]], k=1_700)
    other_train, other_held_out = split(shuffled, 0.1, "f")
    assert {row.text for row in other_held_out} == held_out_texts & {row.text for row in shuffled}
    assert not {row.text for row in other_train} & held_out_texts


def test_a_larger_share_holds_out_the_same_rows_and_more() -> None:
    rows = rows_of(500)
    small, large = (set(split(rows, share, "f")[1]) for share in (0.1, 0.3))
    assert small < large


def test_the_side_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert [row.text for row in split(rows_of(40), 0.1, "f")[1]] == ["글 20", "글 27"]
