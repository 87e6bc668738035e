"""What lies between the stages: `work/` in the run's directory, on the storage that all workers see.

A stage puts its data there and last, atomically, a small JSON file with what it found. A shard without that file is
done again; doing it again gives the same bytes.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.settings import Settings
from jobs.storage import Storage

PRODUCT = "product"
"""Folder below the work folder that is published."""
SIGNATURES = "signatures"
"""Folder of the files that `duplicates` reads, by shard."""


@dataclass(frozen=True)
class Work:
    """The folder at the address `root`, and the settings that everything in it is made under."""

    root: str
    settings: Settings

    @cached_property
    def storage(self) -> Storage:
        """Files below the folder."""
        return Storage(self.root)

    def done(self, stage: str) -> set[int]:
        """Numbers of the finished tasks of a stage."""
        return {int(name.removesuffix(".json")) for name in self.storage.list(f"done/{stage}")}

    def finish(self, stage: str, number: int, found: dict[str, Any]) -> None:
        """Put on record that a task is done and what it found."""
        text = json.dumps(found, ensure_ascii=False, sort_keys=True)
        self.storage.write(f"done/{stage}/{number:06d}.json", text.encode())

    def found(self, stage: str, number: int) -> dict[str, Any]:
        """What `finish` was given."""
        found: dict[str, Any] = json.loads(self.storage.read(f"done/{stage}/{number:06d}.json"))
        return found

    def write_array(self, rel: str, array: NDArray[Any]) -> None:
        """Write a `.npy` file."""
        buffer = io.BytesIO()
        np.save(buffer, array)
        self.storage.write(rel, buffer.getvalue())

    def read_array(self, rel: str) -> NDArray[Any]:
        """What `write_array` wrote."""
        array: NDArray[Any] = np.load(io.BytesIO(self.storage.read(rel)))
        return array

    def local_folder(self, rel: str, scratch: Path) -> Path:
        """A folder of this storage on this machine: itself, or a copy below `scratch`."""
        if self.storage.is_local:
            return self.storage.local_path(rel)
        self.storage.download_tree(rel, scratch / rel)
        return scratch / rel


def raw_rows(group: int, part: int) -> str:
    """Rows as they were read."""
    return f"raw/{group:06d}-{part:04d}.parquet"


def clean_rows(shard: int) -> str:
    """Rows that passed all steps."""
    return f"clean/{shard:06d}.parquet"


def entries(shard: int) -> str:
    """`Signatures.entries` of the clean rows, below SIGNATURES."""
    return f"{shard:06d}.entries.npy"


def keys(shard: int) -> str:
    """`Signatures.keys` of the clean rows, below SIGNATURES."""
    return f"{shard:06d}.keys.npy"


def repeats(shard: int) -> str:
    """Numbers of the clean rows that repeat earlier ones."""
    return f"repeats/{shard:06d}.npy"


def product(name: str, shard: int) -> str:
    """One file of the training set, below PRODUCT."""
    return f"{name}-{shard:06d}.parquet"
