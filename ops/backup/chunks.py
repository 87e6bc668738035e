"""A long stream cut where its content says, so that a change moves only the cuts near it.

A cut is made after a line whose checksum ends in enough zero bits, which holds for the same lines whatever stands
before them: rows inserted into a dump change one or two pieces, and all later ones are found in the store already.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

SMALLEST_BYTES = 512 * 1024
LARGEST_BYTES = 4 * 1024 * 1024
_MASK = (1 << 12) - 1
"""One line in 4,096: with the 80 to 200 bytes of a row in MLflow's tables, about 0.5 MiB beyond the smallest piece."""
_READ_BYTES = 1024 * 1024


class Readable(Protocol):
    """What a pipe or file can do."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def pieces(stream: Readable) -> Iterator[bytes]:
    """The stream in pieces of SMALLEST_BYTES to LARGEST_BYTES; only the last may be shorter."""
    buffer = bytearray()
    ended = False
    while not ended or buffer:
        while not ended and len(buffer) < LARGEST_BYTES:
            data = stream.read(_READ_BYTES)
            ended = not data
            buffer += data
        if buffer:
            size = _cut(buffer)
            yield bytes(buffer[:size])
            del buffer[:size]


def _cut(buffer: bytearray) -> int:
    """Length of the first piece of `buffer`, which holds LARGEST_BYTES or all that is left."""
    end = min(len(buffer), LARGEST_BYTES)
    start = SMALLEST_BYTES
    view = memoryview(buffer)
    try:
        while True:
            newline = buffer.find(b"\n", start, end)
            if newline < 0:
                return end
            if not zlib.crc32(view[start:newline]) & _MASK:
                return newline + 1
            start = newline + 1
    finally:
        view.release()
