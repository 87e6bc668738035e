"""What a step waits for and what it is fed: the time until its rows are there, and how much of them is padding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any


class Feed:
    """Watches the batches on their way into the trainer. Nothing is copied from a GPU until `take`."""

    def __init__(self) -> None:
        self._wait_s, self._batches, self._positions = 0.0, 0, 0
        self._kept: Any = 0

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, each of which is a dictionary with `input_ids` and, where rows are padded, a mask."""
        while True:
            began_s = time.perf_counter()
            batch = next(batches, None)
            self._wait_s += time.perf_counter() - began_s
            if batch is None:
                return
            positions, mask = batch["input_ids"].numel(), batch.get("attention_mask")
            self._positions += positions
            self._kept = self._kept + (positions if mask is None else mask.sum())
            yield batch

    def take(self, steps: int) -> dict[str, float]:
        """Of the batches since the last call: `data_wait_seconds` per step, and `padding_ratio`."""
        positions, kept, wait_s = self._positions, float(self._kept), self._wait_s
        self.__init__()  # type: ignore[misc]
        if not (steps and positions):
            return {}
        return {"data_wait_seconds": wait_s / steps, "padding_ratio": 1 - kept / positions}
