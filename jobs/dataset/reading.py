"""From an address to conversations: which files are meant, what rows they hold."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, TextIO

from jobs.dataset.conversation import Conversation
from jobs.dataset.formats import parse, recognise
from jobs.dataset.text_encoding import decode
from jobs.errors import RemoteError, UsageError
from jobs.manifest import MANIFEST
from jobs.settings import DataSettings
from jobs.storage import NotFound, Storage
from jobs.storage_errors import explained

_LINE = re.compile(r"[^\S\n]*\S[^\n]*")
_PARAGRAPH = re.compile(rf"{_LINE.pattern}(?:\n{_LINE.pattern})*")

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Origin and columns of each row."""

_CHUNK_CHARACTERS = 1_000
"""Paragraphs of plain text are joined up to this size: enough to learn from context, small enough that a book still
gives rows for both sides of the split. Longer paragraphs stay whole and are cut by tokens later."""


def read_rows(data: DataSettings) -> list[Conversation]:
    """Every row of `data.source` in a stable order: files by path, rows as they stand.

    Raises UsageError naming file and row for what cannot be read; RemoteError if S3 or the hub does not answer.
    """
    if data.source.startswith("hf:"):
        return _conversations(_hub_rows(data.source), data.format, data.source)
    filesystem, files = data_files(data.source, lambda path: _suffix(path) in _READERS, ", ".join(_READERS))
    rows: list[Conversation] = []
    for name, path in files:
        with explained(name, "read"):
            content = filesystem.cat_file(path)
        if not content.strip():
            raise UsageError(f"{name}: the file is empty")
        rows += _conversations(_READERS[_suffix(path)](content, name), data.format, name)
    return rows


def _conversations(rows: Rows, wanted: str, name: str) -> list[Conversation]:
    format_name, result = wanted, []
    for origin, row in rows:
        if format_name == "auto":
            format_name = recognise(row, wanted, origin)
        result.append(parse(row, format_name, origin))
    if not result:
        raise UsageError(f"{name}: holds no rows")
    return result


def data_files(source: str, is_data: Callable[[str], bool], endings: str) -> tuple[Any, list[tuple[str, str]]]:
    """The file system, and of each data file below the address `source` the name to show and the path to read, by path.

    Hidden files and a folder's manifest are left out. `endings` says in the UsageError for no files which ones count.
    Raises NotFound for an address with nothing there.
    """
    scheme, separator, _ = source.partition("://")
    if separator and scheme not in ("s3", "file"):
        raise UsageError(f"{source}: unknown scheme {scheme}://; use a path, file://… or s3://…")
    storage = Storage(source)
    filesystem, root = storage.filesystem, storage.root.removeprefix("s3://")
    with explained(source, "read"):
        folder = root
        if filesystem.isdir(root):
            found = filesystem.find(root)
        elif filesystem.exists(root):
            folder, found = "", [root]
        elif set("*?[") & set(root):
            folder = re.split(r"[*?\[]", root)[0].rpartition("/")[0]
            found = [path for path in filesystem.glob(root) if filesystem.isfile(path)]
        else:
            raise NotFound(f"{source}: no such file or folder; check the address")
    files = sorted(
        path
        for path in found
        if is_data(path) and "/." not in path[len(folder) :] and PurePosixPath(path).name != MANIFEST
    )
    if not files:
        raise UsageError(f"{source}: no data files; those end in {endings}")
    if not storage.is_local:
        return filesystem, [(f"s3://{path}", path) for path in files]
    is_absolute = separator or source.startswith(("/", "~"))
    return filesystem, [(path if is_absolute else os.path.relpath(path), path) for path in files]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _json_rows(content: bytes, name: str) -> Rows:
    """A list of objects, or one object per line: many sets call the latter `.json` as well."""
    text = decode(content, name)
    if not text.lstrip().startswith("["):
        yield from _parsed_lines(text, name)
        return
    for number, row in enumerate(_parse_json(text, name, 1), start=1):
        yield f"{name} row {number}", _object(row, f"{name} row {number}")


def _json_line_rows(content: bytes, name: str) -> Rows:
    return _parsed_lines(decode(content, name), name)


def _parsed_lines(text: str, name: str) -> Rows:
    # Not splitlines(): JSON strings may hold U+2028 and other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{name}:{number}", json_row(line, name, number)


def json_row(line: str, name: str, number: int) -> dict[str, Any]:
    """The object on line `number`. Raises UsageError naming it for anything else."""
    return _object(_parse_json(line, name, number), f"{name}:{number}")


def _parse_json(text: str, name: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}:{first_line + error.lineno - 1}"
        raise UsageError(f"{where}: broken JSON at column {error.colno}: {error.msg}; fix or remove this row") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}:{first_line}: cannot be read as JSON: {error}") from None


def _object(row: Any, origin: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(f"{origin}: expected an object with named columns, found {type(row).__name__}")
    return row


def _csv_file_rows(content: bytes, name: str) -> Rows:
    return csv_rows(io.StringIO(decode(content, name), newline=""), name)


def csv_rows(stream: TextIO, name: str) -> Rows:
    """Rows under the header that comes first. `stream` keeps line ends as they are (`newline=""`)."""
    csv.field_size_limit(sys.maxsize)  # the default refuses texts above 128 KiB
    reader = csv.reader(stream, strict=True)
    line = 1
    try:
        header = next(reader)
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                count = f"{len(cells)} cells, but the header has {len(header)} columns"
                raise UsageError(f"{name}:{line}: {count}; quote cells that hold commas")
            if cells:
                yield f"{name}:{line}", dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{name}:{line}: broken CSV: {error}; fix or remove this row") from None


def _parquet_rows(content: bytes, name: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{name}: corrupt Parquet file: {reason}; write or download it again") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{name} row {number}", row


def _text_rows(content: bytes, name: str) -> Rows:
    return text_rows(decode(content, name), name)


def text_rows(text: str, name: str, first_line: int = 1) -> Rows:
    """Neighbouring paragraphs, and lines of paragraphs that are too long, joined to chunks."""
    text = text.replace("\r\n", "\n")
    chunks: list[tuple[int, int]] = []
    for paragraph in _PARAGRAPH.finditer(text):
        is_long = len(paragraph[0]) > _CHUNK_CHARACTERS
        for piece in _LINE.finditer(text, *paragraph.span()) if is_long else [paragraph]:
            if chunks and piece.end() - chunks[-1][0] <= _CHUNK_CHARACTERS:
                chunks[-1] = (chunks[-1][0], piece.end())
            else:
                chunks.append(piece.span())
    for start, end in chunks:
        yield f"{name}:{text.count(chr(10), 0, start) + first_line}", {"text": text[start:end]}


def _hub_rows(source: str) -> Rows:
    import datasets

    name, _, rest = source.removeprefix("hf:").partition(":")
    config, _, split = rest.partition(":")
    if not name:
        raise UsageError(f"data.source {source}: names no dataset; write hf:<dataset>[:<config>[:<split>]]")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train")
    except (FileNotFoundError, ValueError, RuntimeError, datasets.exceptions.DatasetGenerationError) as error:
        raise UsageError(
            f"{source}: {' '.join(str(error).split())}; expected hf:<dataset>[:<config>[:<split>]]"
        ) from None
    except OSError as error:
        raise RemoteError(f"{source}: the hub does not answer: {' '.join(str(error).split())}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{source} row {number}", row


_READERS: dict[str, Callable[[bytes, str], Rows]] = {
    ".jsonl": _json_line_rows,
    ".json": _json_rows,
    ".csv": _csv_file_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
