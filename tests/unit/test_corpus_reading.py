"""Files of every format, encoding and compression give the same rows; damaged ones say what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from korean import paragraphs

from jobs.corpus import reading
from jobs.corpus.reading import Reader, Unreadable
from jobs.corpus.sources import find, groups
from jobs.dataset import Conversation
from jobs.dataset.text_encoding import detect
from jobs.errors import UsageError

TEXTS = list(paragraphs()[:5])
PACKED = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def contents() -> dict[str, bytes]:
    sheet = io.StringIO()
    csv.writer(sheet).writerows([["id", "text"], *([str(n), text] for n, text in enumerate(TEXTS))])
    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS, "url": ["x"] * 5}), table, row_group_size=2)
    return {
        ".jsonl": "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS).encode(),
        ".csv": sheet.getvalue().encode(),
        ".parquet": table.getvalue(),
        ".html": f"<html><body>{''.join(f'<p>{text}</p>' for text in TEXTS)}</body></html>".encode(),
        ".txt": "\n\n".join(TEXTS).encode(),
    }


def read(path: Path, text_column: str = "text") -> list[Conversation | Unreadable]:
    (source,) = find([str(path)])
    reader = Reader(source.storage().filesystem, source, text_column)
    return list(reader.rows(reader.inspect().encoding))


def texts(rows: list[Conversation | Unreadable]) -> list[str]:
    assert all(isinstance(row, Conversation) for row in rows)
    return [row.text for row in rows]


@pytest.mark.parametrize(
    ("kind", "packed"), [(".parquet", ""), *((kind, packed) for kind in (".jsonl", ".csv") for packed in PACKED)]
)
def test_rows_of_every_format_and_compression(tmp_path: Path, kind: str, packed: str) -> None:
    path = tmp_path / f"rows{kind}{packed}"
    path.write_bytes(PACKED[packed](contents()[kind]))
    assert texts(read(path)) == TEXTS


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("kind", [".html", ".txt"])
def test_text_of_pages_and_plain_files(tmp_path: Path, kind: str, packed: str) -> None:
    path = tmp_path / f"page{kind}{packed}"
    path.write_bytes(PACKED[packed](contents()[kind]))
    assert "".join("".join(texts(read(path))).split()) == "".join("".join(TEXTS).split())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "euc-kr", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("piece", [7, 2**20])
def test_encodings_are_detected(tmp_path: Path, encoding: str, piece: int) -> None:
    text = "제목: ABC\n\n" + "\n\n".join(TEXTS)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert "\n\n".join(texts(read(path))) == text
    data = path.read_bytes()
    found = detect((data[at : at + piece] for at in range(0, len(data), piece)), "a.txt")
    assert data.decode(found) == text


def test_ascii_may_come_long_before_korean() -> None:
    assert detect([b"x" * 100, b"y" * 100, "한글입니다".encode("cp949")], "a") == "cp949"
    assert detect([b"x" * 100, "한글입니다".encode()], "a") == "utf-8"
    assert detect([], "a") == "utf-8"


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["한글 ".encode() * 50, b"\xff\xfe\x80", "한글".encode()], "is not utf-8: byte 0xff at offset 350"),
        (["한글".encode()[:-1]], "ends within a character of utf-8"),
        ([bytes(range(128, 256)) * 4], "is not UTF-8 or CP949"),
        (["漢字語文獻".encode("cp949") * 20], "neither UTF-8 nor Korean text"),
        ([b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\xd8\x00\xd8\x00"], "PNG|neither|is not utf-16"),
    ],
)
def test_what_is_no_text(pieces: list[bytes], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        detect(pieces, "a.txt")


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"\x28\xb5\x2f\xfd broken" + data[9:]])
def test_damaged_archives(tmp_path: Path, packed: str, damage: object) -> None:
    path = tmp_path / f"a.txt{packed}"
    path.write_bytes(damage(PACKED[packed](("\n\n".join(TEXTS) * 50).encode())))  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"^a\.txt\.(gz|zst): damaged: "):
        read(path)


@pytest.mark.parametrize("cut", [lambda data: data[:200], lambda data: data[:200] + b"\xff" * 300 + data[500:]])
def test_damaged_parquet(tmp_path: Path, cut: object) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(cut(contents()[".parquet"]))  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"^a\.parquet: damaged: "):
        read(path)


def test_archives_of_several_members(tmp_path: Path) -> None:
    for packed in (".gz", ".zst"):
        path = tmp_path / f"a.jsonl{packed}"
        path.write_bytes(b"".join(PACKED[packed](line + b"\n") for line in contents()[".jsonl"].splitlines()))
        assert texts(read(path)) == TEXTS


def test_broken_rows_leave_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LONGEST_LINE", 500)
    lines = [
        json.dumps({"text": TEXTS[0]}, ensure_ascii=False),
        '{"text": "cut off',
        "[1, 2]",
        json.dumps({"text": ""}),
        json.dumps({"text": "가" * 2_000}, ensure_ascii=False),
        "",
        json.dumps({"text": TEXTS[1]}, ensure_ascii=False),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")

    rows = read(path)

    assert [row.text for row in rows if isinstance(row, Conversation)] == TEXTS[:2]
    assert rows[-1].origin == "a.jsonl:7"
    bad = {row.origin: row.reason for row in rows if isinstance(row, Unreadable)}
    assert list(bad) == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4", "a.jsonl:5"]
    assert bad["a.jsonl:2"].startswith("broken JSON")
    assert bad["a.jsonl:5"] == "longer than 500 characters"


def test_conversations_of_any_layout_and_other_text_columns(tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"instruction": "수도는?", "output": "서울입니다."}), encoding="utf-8")
    (row,) = read(asked)
    assert isinstance(row, Conversation)
    assert [(m.role, m.content) for m in row.messages] == [("user", "수도는?"), ("assistant", "서울입니다.")]
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"body": TEXTS[0]}), encoding="utf-8")
    assert texts(read(other, "body")) == TEXTS[:1]
    with pytest.raises(UsageError, match="columns body fit no known format"):
        read(other)


def test_a_long_file_is_read_in_blocks_without_losing_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_CHARACTERS", 300)
    lines = [text for number, text in enumerate(TEXTS * 10) for text in ([f"{number}. {text}"] + [""] * (number % 3))]
    path = tmp_path / "a.txt"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")

    rows = read(path)

    kept = [line for row in rows if isinstance(row, Conversation) for line in row.text.split("\n") if line]
    assert kept == [line for line in lines if line]
    for row in rows:
        first_line = int(row.origin.rpartition(":")[2])
        assert isinstance(row, Conversation)
        assert lines[first_line - 1] == row.text.split("\n")[0]
    assert max(len(row.text) for row in rows if isinstance(row, Conversation)) <= 1_000


def test_files_below_folders_and_globs(tmp_path: Path) -> None:
    for name in ("a/x.txt", "a/b/y.jsonl.gz", "a/.hidden.txt", "a/notes.doc", "a/manifest.json", "z.HTML"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert [source.name for source in find([str(tmp_path)])] == ["a/b/y.jsonl.gz", "a/x.txt", "z.HTML"]
    assert [source.name for source in find([f"file://{tmp_path}/a", str(tmp_path / "a/*.txt")])] == [
        "b/y.jsonl.gz",
        "x.txt",
    ]
    assert [source.name for source in find([str(tmp_path / "*/*.txt")])] == ["a/x.txt"]
    with pytest.raises(UsageError, match=r"no data files; those end in \.txt, \.jsonl, .* or these with \.gz or \.zst"):
        find([str(tmp_path / "a/notes.doc")])
    with pytest.raises(UsageError, match="no such file or folder"):
        find([str(tmp_path / "nothing")])


def test_small_files_are_grouped_and_large_ones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.corpus.sources._GROUP_BYTES", 100)
    for name, size in (("a", 60), ("b", 40), ("c", 10), ("d", 500), ("e", 1)):
        (tmp_path / f"{name}.txt").write_bytes(b"x" * size)
    found = groups(find([str(tmp_path)]))
    assert [[source.name[0] for source in group] for group in found] == [["a", "b"], ["c"], ["d"], ["e"]]
