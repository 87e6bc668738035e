"""Which rows are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.dataset.conversation import Conversation
from jobs.errors import UsageError

_HASH_DIGITS = 16
_HASHES = 16**_HASH_DIGITS


def is_held_out(row: Conversation, held_out: float) -> bool:
    """Whether a row is on the held-out side when that is to have the share `held_out` of all rows."""
    return bool(int(row.digest[:_HASH_DIGITS], 16) < held_out * _HASHES)


def split(rows: Sequence[Conversation], held_out: float, name: str) -> tuple[list[Conversation], list[Conversation]]:
    """Training and held-out rows, each in the given order.

    A row's side depends on its own content and on the share alone: not on order, seed or other rows. So a copy of a
    held-out row is never trained on, and rows stay on their side when a set grows. `name` is for the UsageError that
    an empty side raises.
    """
    sides: tuple[list[Conversation], list[Conversation]] = ([], [])
    for row in rows:
        sides[is_held_out(row, held_out)].append(row)
    if not all(sides):
        if len({row.digest for row in rows}) == 1:
            raise UsageError(f"{name}: all {len(rows)} rows hold the same content; add others to hold out")
        side, remedy = ("training", "lower") if sides[1] else ("held-out", "raise")
        raise UsageError(
            f"{name}: no {side} row: data.held_out={held_out} of {len(rows)} rows by their hash is none; "
            f"add rows or {remedy} data.held_out"
        )
    return sides
