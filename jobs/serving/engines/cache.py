"""Keys and values of the rows that share a forward pass.

All rows end in the same column, so that a pass writes one column for all of them and transformers' own masks (full and
sliding) hold: distances between columns are distances between positions. A row that leaves is overwritten by the last
one, a row that joins is written behind it; nothing else is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

if TYPE_CHECKING:
    from torch import Tensor

_FIRST_COLUMNS = 256


class _Layer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer of a `RowCache`: buffers [most rows, heads, columns, dimension], of which a window is in use."""

    def __init__(self, rows: RowCache) -> None:
        super().__init__()
        self._rows = rows

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (self._rows.most_rows, key_states.shape[1], self._rows.columns)
        # Zeros, not empty: a masked column's weight is 0, and 0 times the NaN that fresh memory may hold is NaN.
        self.keys = key_states.new_zeros((*shape, key_states.shape[-1]))
        self.values = value_states.new_zeros((*shape, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        rows, first, end = len(self._rows), self._rows.first, self._rows.end
        window = slice(first, end + key_states.shape[-2])
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            buffer[:rows, :, end : end + states.shape[-2]] = states
        return self.keys[:rows, :, window], self.values[:rows, :, window]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self._rows.end - self._rows.first

    def get_max_length(self) -> int:
        return -1

    def move(self, source: slice, target: slice, columns: int) -> None:
        """Move columns, into larger buffers if need be."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old if columns == old.shape[2] else old.new_zeros((*old.shape[:2], columns, old.shape[3]))
            new[: len(self._rows), :, target] = old[: len(self._rows), :, source].clone()
            setattr(self, name, new)


class RowCache(Cache):  # type: ignore[misc]
    """The cache of up to `most_rows` rows; `lengths` holds how many columns of each are filled."""

    def __init__(self, layers: int, most_rows: int) -> None:
        self.most_rows, self.columns, self.end = most_rows, _FIRST_COLUMNS, 0
        self.lengths: list[int] = []
        super().__init__(layers=[_Layer(self) for _ in range(layers)])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def first(self) -> int:
        """First column that any row uses."""
        return self.end - max(self.lengths, default=0)

    def join(self, prompt: DynamicCache) -> None:
        """Append a row that was computed by itself: [1, heads, tokens, dimension] in each layer."""
        tokens, row = prompt.get_seq_length(), len(self)
        self._make_room(tokens)
        self.lengths.append(tokens)
        target = slice(self.end - tokens, self.end)
        for layer, computed in zip(self.layers, prompt.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(computed.keys, computed.values)
            layer.keys[row, :, target] = computed.keys[0]
            layer.values[row, :, target] = computed.values[0]

    def leave(self, row: int) -> None:
        """Forget a row; the last one takes its number. The last to leave frees the memory."""
        last = len(self) - 1
        if last == 0:
            self.__init__(len(self.layers), self.most_rows)  # type: ignore[misc]
            return
        if row != last:
            used = slice(self.end - self.lengths[last], self.end)
            for layer in self.layers:
                layer.keys[row, :, used] = layer.keys[last, :, used]
                layer.values[row, :, used] = layer.values[last, :, used]
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def prepare(self) -> None:
        """Make room for the column that a pass is about to write."""
        self._make_room(0)

    def advance(self) -> None:
        """Count the column that a pass wrote."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def mask(self, device: torch.device) -> Tensor:
        """[rows, columns in use and the next one]: 1 where a row has a token."""
        width = self.end + 1 - self.first
        lengths = torch.tensor(self.lengths, device=device)[:, None]
        return (torch.arange(width, device=device) >= width - 1 - lengths).long()

    def _make_room(self, width: int) -> None:
        """Let the rows end at column `width` or behind it, with a free column after that; grow where there is none."""
        used = max(self.lengths, default=0)
        end, columns = max(self.end, width), self.columns
        if end >= columns:
            end = max(used, width)  # the columns in front were left by all rows
            while 4 * (end + 1) > 3 * columns:
                columns *= 2
        if (end, columns) != (self.end, self.columns):
            for layer in self.layers:
                if layer.is_initialized:
                    layer.move(slice(self.end - used, self.end), slice(end - used, end), columns)
            self.end, self.columns = end, columns
