"""Rows as Parquet files: the same rows give the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from jobs.dataset.conversation import Conversation, Message

_TURN = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
_CONTENT = [("text", pyarrow.string()), ("messages", pyarrow.list_(_TURN)), ("source", pyarrow.string())]
RAW = pyarrow.schema([*_CONTENT, ("origin", pyarrow.string()), ("unreadable", pyarrow.string())])
"""`unreadable` is the reason why a row has neither text nor messages."""
CLEAN = pyarrow.schema(
    [*_CONTENT, ("held_out", pyarrow.bool_()), ("characters", pyarrow.uint32()), ("draw", pyarrow.uint32())]
)
"""`draw` is uniform over all uint32, by the row's content: rows below a bound are a sample."""
_LAYOUTS = ("text", "messages")


def content(row: Conversation) -> dict[str, Any]:
    """The columns `text` and `messages` of a row, one of them empty."""
    if row.text is not None:
        return {"text": row.text, "messages": None}
    return {"text": None, "messages": [vars(message) for message in row.messages]}


def conversation(row: dict[str, Any], origin: str = "") -> Conversation:
    """The row that `content` gave the columns of."""
    text, messages = row["text"], row["messages"]
    if messages is not None:
        return Conversation(tuple(Message(**message) for message in messages), None, origin)
    return Conversation((), text, origin)


def dump(table: pyarrow.Table) -> bytes:
    """A Parquet file."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd", row_group_size=100_000)
    return bytes(sink.getvalue())


def load(data: bytes) -> pyarrow.Table:
    """What `dump` wrote."""
    return pyarrow.parquet.read_table(pyarrow.BufferReader(data))


def without(table: pyarrow.Table, rows: NDArray[np.uint32]) -> pyarrow.Table:
    """The table with those rows left out."""
    keep = np.ones(len(table), dtype=bool)
    keep[rows] = False
    return table.filter(pyarrow.array(keep))


def sides(clean: pyarrow.Table) -> dict[str, pyarrow.Table]:
    """Tables of the training set by file name without number: `train/text`, `held_out/messages`, …; none is empty."""
    parts = {}
    for side, is_held_out in (("train", False), ("held_out", True)):
        rows = clean.filter(pyarrow.compute.equal(clean["held_out"], is_held_out))
        for layout in _LAYOUTS:
            part = rows.filter(rows[layout].is_valid()).select([layout, "source"])
            if len(part):
                parts[f"{side}/{layout}"] = part
    return parts


def contents(row: Conversation) -> list[str]:
    """The row's texts: its own, or one per turn."""
    return [row.text] if row.text is not None else [message.content for message in row.messages]
