"""The three stages that run over shards, each a function of the work folder and one task. Nothing is shared between
tasks but what lies on the storage, so they run in any order, in one process or on many machines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow
import pyarrow.compute

from jobs.corpus import contamination, tables, work
from jobs.corpus.reading import Reader, Unreadable
from jobs.corpus.signatures import sign
from jobs.corpus.sources import Source
from jobs.corpus.steps import Cleaned, Cleaner, Dropped, mask
from jobs.corpus.tally import Tally, length_classes
from jobs.corpus.work import Work
from jobs.dataset.conversation import Conversation, Message
from jobs.dataset.split import is_held_out
from jobs.errors import UsageError

_ROWS_AT_ONCE = 1_000
_QUOTED_CHARACTERS = 1_000
"""Masked before an example is cut shorter, so that half a number never shows."""


@dataclass(frozen=True)
class ReadTask:
    """Read these files into raw shards."""

    number: int
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class CleanTask:
    """Clean the raw shard that is named by `group` and `part`; rows of the files in `quarantined` do not count."""

    number: int
    group: int
    part: int
    quarantined: tuple[str, ...]


@dataclass(frozen=True)
class WriteTask:
    """Write one shard of the training set without the rows in `work.repeats`. Of the rest, rows whose `draw` is at most
    `highest_draw` are the sample for the tokenizer's figures."""

    number: int
    highest_draw: int


def read_group(here: Work, task: ReadTask) -> None:
    """Read files into raw shards. Finds how many there are, and of each file what it is or what is wrong with it."""
    shards = _RawShards(here, task.number)
    filesystem = task.sources[0].storage().filesystem
    files = []
    for source in task.sources:
        file: dict[str, Any] = {"name": source.name, "bytes": source.size_bytes, "rows": 0}
        file |= {"sha256": "", "encoding": "", "error": ""}
        reader = Reader(filesystem, source, here.settings.corpus.text_column)
        try:
            inspected = reader.inspect()
            file |= {"sha256": inspected.sha256, "encoding": inspected.encoding or "parquet"}
            for row in reader.rows(inspected.encoding):
                shards.add(row, source.name)
                file["rows"] += 1
            if not file["rows"]:
                file["error"] = "holds no rows"
        except UsageError as error:
            file["error"] = str(error).removeprefix(f"{source.name}: ")
        files.append(file)
    shards.flush()
    here.finish("read", task.number, {"parts": shards.parts, "files": files})


class _RawShards:
    """Collects rows and writes a shard whenever there are enough. A row that cannot be read keeps its place, with the
    reason for text and no messages."""

    def __init__(self, here: Work, group: int) -> None:
        self._here, self._group = here, group
        self._limit = here.settings.corpus.shard_characters
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pyarrow.RecordBatch] = []
        self._characters = 0
        self.parts = 0

    def add(self, row: Conversation | Unreadable, source: str) -> None:
        if isinstance(row, Unreadable):
            columns: dict[str, Any] = {"text": None, "messages": None, "unreadable": row.reason}
        else:
            columns = tables.content(row) | {"unreadable": None}
            self._characters += sum(map(len, tables.contents(row)))
        self._rows.append(columns | {"source": source, "origin": row.origin})
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._pack()
        if self._characters >= self._limit:
            self.flush()

    def flush(self) -> None:
        self._pack()
        if self._batches:
            table = pyarrow.Table.from_batches(self._batches, tables.RAW)
            self._here.storage.write(work.raw_rows(self._group, self.parts), tables.dump(table))
            self.parts += 1
        self._batches, self._characters = [], 0

    def _pack(self) -> None:
        if self._rows:
            self._batches.append(pyarrow.RecordBatch.from_pylist(self._rows, tables.RAW))
            self._rows = []


def clean_shard(here: Work, task: CleanTask) -> None:
    """Clean a raw shard and sign what is left. Finds the tally."""
    settings = here.settings
    cleaner = Cleaner(settings.corpus.cleaning)
    tally = Tally()
    rows: list[tuple[str, Conversation]] = []
    table = tables.load(here.storage.read(work.raw_rows(task.group, task.part)))
    for source, row in _raw(table, frozenset(task.quarantined)):
        tally.rows += 1
        if isinstance(row, Unreadable):
            tally.drop("unreadable_row", row.origin, row.reason, "")
        elif (cleaned := _cleaned(cleaner, row, tally)) is not None:
            rows.append((source, cleaned))
    del table
    rows = _without_overlaps(rows, here, tally)
    signatures = sign(["\n".join(tables.contents(row)) for _, row in rows])
    tally.kept = len(rows)
    here.write_array(f"{work.SIGNATURES}/{work.entries(task.number)}", signatures.entries)
    here.write_array(f"{work.SIGNATURES}/{work.keys(task.number)}", signatures.keys)
    here.storage.write(work.clean_rows(task.number), tables.dump(_clean_table(rows, settings.data.held_out)))
    here.finish("clean", task.number, tally.as_dict())


def _raw(table: pyarrow.Table, quarantined: frozenset[str]) -> Iterator[tuple[str, Conversation | Unreadable]]:
    """Source and content of each row."""
    for batch in table.to_batches(_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            if row["source"] in quarantined:
                continue
            if row["unreadable"] is not None:
                yield row["source"], Unreadable(row["origin"], row["unreadable"])
            else:
                yield row["source"], tables.conversation(row, row["origin"])


def _cleaned(cleaner: Cleaner, row: Conversation, tally: Tally) -> Conversation | None:
    """The row with its texts cleaned; None, on the tally, if it is to be dropped."""
    texts = tables.contents(row)
    outcome = cleaner(texts[0]) if row.text is not None else cleaner.conversation(texts)
    if isinstance(outcome, Dropped):
        tally.drop(outcome.rule, row.origin, outcome.detail, mask("\n".join(texts)[:_QUOTED_CHARACTERS]))
        return None
    parts = [outcome] if isinstance(outcome, Cleaned) else outcome
    tally.changed.update({step for part in parts for step in part.changed})
    for part in parts:
        tally.masked.update(part.masked)
    if row.text is not None:
        return replace(row, text=parts[0].text)
    turns = zip(row.messages, parts, strict=True)
    return replace(row, messages=tuple(Message(turn.role, part.text) for turn, part in turns))


def _without_overlaps(rows: list[tuple[str, Conversation]], here: Work, tally: Tally) -> list[tuple[str, Conversation]]:
    items = contamination.load(here).overlaps(["\n".join(tables.contents(row)) for _, row in rows])
    for (_, row), item in zip(rows, items, strict=True):
        if item is not None:
            tally.overlaps[item] += 1
            tally.drop("evaluation_overlap", row.origin, f"shares a run with {item}", tables.contents(row)[0])
    return [row for row, item in zip(rows, items, strict=True) if item is None]


def _clean_table(rows: list[tuple[str, Conversation]], held_out: float) -> pyarrow.Table:
    columns = [
        tables.content(row)
        | {
            "source": source,
            "held_out": is_held_out(row, held_out),
            "characters": sum(map(len, tables.contents(row))),
            "draw": int(row.digest[-8:], 16),
        }
        for source, row in rows
    ]
    return pyarrow.Table.from_pylist(columns, tables.CLEAN)


def write_shard(here: Work, task: WriteTask) -> None:
    """Write a shard of the training set. Finds its files with their rows, sizes and checksums, how many rows are in
    each class of length, and the sampled texts."""
    repeats = here.read_array(work.repeats(task.number))
    table = tables.without(tables.load(here.storage.read(work.clean_rows(task.number))), repeats)
    files = {}
    for name, part in tables.sides(table).items():
        rel = work.product(name, task.number)
        data = tables.dump(part)
        here.storage.write(f"{work.PRODUCT}/{rel}", data)
        files[rel] = {"rows": len(part), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    drawn = table.filter(pyarrow.compute.less_equal(table["draw"], task.highest_draw))
    found = {
        "files": files,
        "lengths": length_classes(table["characters"].to_numpy()),
        "characters": pyarrow.compute.sum(table["characters"]).as_py() or 0,
        "sample": ["\n".join(tables.contents(tables.conversation(row))) for row in drawn.to_pylist()],
    }
    here.finish("write", task.number, found)
