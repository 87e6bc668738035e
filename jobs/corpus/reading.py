"""From a file, whatever its format, compression and encoding, to rows; in pieces, so that its size does not matter."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from jobs.corpus.sources import Source
from jobs.corpus.steps.markup import html_to_text
from jobs.dataset.conversation import Conversation
from jobs.dataset.formats import parse, recognise
from jobs.dataset.reading import csv_rows, json_row, text_rows
from jobs.dataset.text_encoding import detect
from jobs.errors import HaetsalError, UsageError
from jobs.storage_errors import explained

_PIECE_BYTES = 2**20
_BLOCK_CHARACTERS = 250_000
"""A long text is cut at a paragraph's end into blocks of this size, or where it has none, at a line's end."""
_LONGEST_LINE = 10_000_000
"""Characters. A longer line of JSON is not read; one of plain text is cut."""
_LONGEST_PAGE = 50_000_000
"""Characters of HTML in one file."""
_BATCH_ROWS = 500


@dataclass(frozen=True)
class Unreadable:
    """A row that is dropped because of what is wrong with it; the file's other rows are read."""

    origin: str
    reason: str


@dataclass(frozen=True)
class Inspected:
    """What a first pass over a file tells: its sha256 in hex, and its encoding if it holds text."""

    sha256: str
    encoding: str | None


class Reader:
    """Reads one file of `filesystem`. Its methods raise UsageError for a file that is to be put aside as a whole."""

    def __init__(self, filesystem: Any, source: Source, text_column: str) -> None:
        self._filesystem = filesystem
        self._source = source
        self._kind = source.kind
        self._text_column = text_column

    def inspect(self) -> Inspected:
        """Read the file once for its checksum and its encoding."""
        encoding = None
        with self._opened() as raw:
            hashed = _Hashed(raw)
            if self._kind != ".parquet":
                encoding = detect(_pieces(self._decompressed(hashed)), self._source.name)
            for _ in _pieces(hashed):  # what the decompressor did not ask for, or all of it
                pass
        return Inspected(hashed.sha256.hexdigest(), encoding)

    def rows(self, encoding: str | None) -> Iterator[Conversation | Unreadable]:
        """Every row in its order."""
        layout = None
        for origin, row in self._columns(encoding):
            if isinstance(row, UsageError):
                yield Unreadable(origin, _reason(row, origin))
                continue
            row = self._with_text(row)
            layout = layout or recognise(row, "auto", origin)
            try:
                yield parse(row, layout, origin)
            except UsageError as error:
                yield Unreadable(origin, _reason(error, origin))

    def _with_text(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its text where `formats` looks for it."""
        if self._kind not in (".jsonl", ".csv", ".parquet") or self._text_column not in row:
            return row
        return {"text": row[self._text_column]}

    def _columns(self, encoding: str | None) -> Iterator[tuple[str, dict[str, Any] | UsageError]]:
        name = self._source.name
        with self._opened() as raw:
            if encoding is None:
                yield from _parquet_rows(self._decompressed(raw), name)
                return
            newline = "" if self._kind == ".csv" else "\n"
            stream = io.TextIOWrapper(self._decompressed(raw), encoding, newline=newline)
            match self._kind:
                case ".jsonl":
                    yield from _json_rows(stream, name)
                case ".csv":
                    yield from csv_rows(stream, name)
                case ".txt":
                    for first_line, block in _blocks(stream):
                        yield from text_rows(block, name, first_line)
                case _:
                    page = stream.read(_LONGEST_PAGE + 1)
                    if len(page) > _LONGEST_PAGE:
                        raise UsageError(
                            f"{name}: more than {_LONGEST_PAGE:,} characters of HTML in one file; split it"
                        )
                    yield name, {"text": html_to_text(page)}

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        path, name = self._source.path, self._source.name
        with explained(path, "read"):
            try:
                with self._filesystem.open(path, "rb") as file:
                    yield file
            except HaetsalError:
                raise
            except (pyarrow.ArrowException, EOFError) as error:
                raise UsageError(f"{name}: damaged: {_first_line(error)}") from None
            except OSError as error:
                if error.errno is not None or error.__cause__ is not None:
                    raise  # the disk's or the network's, not the file's
                raise UsageError(f"{name}: damaged: {_first_line(error)}") from None

    def _decompressed(self, raw: Any) -> Any:
        compression = self._source.compression
        # Arrow's streams take several frames in one file and, other than zstandard's, tell a file that is cut off.
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), compression) if compression else raw


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data

    def close(self) -> None:
        self.closed = True


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _json_rows(stream: io.TextIOWrapper, name: str) -> Iterator[tuple[str, dict[str, Any] | UsageError]]:
    number, rest_of_line = 0, False
    while line := stream.readline(_LONGEST_LINE):
        is_whole = line.endswith("\n") or len(line) < _LONGEST_LINE
        if not rest_of_line:
            number += 1
            origin = f"{name}:{number}"
            if not is_whole:
                yield origin, UsageError(f"{origin}: longer than {_LONGEST_LINE:,} characters")
            elif line.strip():
                try:
                    yield origin, json_row(line.rstrip("\r\n"), name, number)
                except UsageError as error:
                    yield origin, error
        rest_of_line = not is_whole


def _blocks(stream: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Number of the first line and text of each block."""
    lines: list[str] = []
    first = number = 1
    size = 0
    while line := stream.readline(_BLOCK_CHARACTERS):
        lines.append(line)
        size += len(line)
        number += line.endswith("\n")
        if size >= 2 * _BLOCK_CHARACTERS or (size >= _BLOCK_CHARACTERS and not line.strip()):
            yield first, "".join(lines)
            lines, first, size = [], number, 0
    if lines:
        yield first, "".join(lines)


def _parquet_rows(file: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield f"{name} row {number}", row


def _reason(error: UsageError, origin: str) -> str:
    return str(error).removeprefix(f"{origin}: ")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
