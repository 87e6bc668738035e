"""Where the training set goes, and how it gets there as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from jobs.corpus import work
from jobs.corpus.sources import Source
from jobs.corpus.work import Work
from jobs.errors import UsageError
from jobs.manifest import Entry
from jobs.storage import Storage

CARD = "corpus.yaml"
"""Counts, settings and code version. Written first: it marks what is there as ours, to be replaced."""


class Output:
    """The folder or prefix that is published to. Raises UsageError for an address that cannot be one."""

    def __init__(self, address: str) -> None:
        root = Storage(address).root
        parent, _, self._name = root.rpartition("/")
        if parent in ("", "s3:/"):
            raise UsageError(f"OUTPUT {address}: name a folder below it, which can be replaced as a whole")
        self._storage = Storage(parent)
        self.address = root

    def check(self, sources: Iterable[Source]) -> None:
        """Raise UsageError if publishing would destroy what it should not: the input, or files of somebody else."""
        for source in sources:
            path = source.path if source.is_local else f"s3://{source.path}"
            if path.startswith(f"{self.address}/"):
                raise UsageError(f"OUTPUT {self.address}: holds the input file {path}; choose another folder")
        if self._storage.list(self._name) and not self._storage.exists(f"{self._name}/{CARD}"):
            raise UsageError(
                f"OUTPUT {self.address}: is there already and was not made by preprocess (it has no {CARD}); "
                "choose another folder or empty it"
            )

    def check_writable(self) -> None:
        """Prove that it takes writes."""
        self._storage.check_writable()

    def publish(self, here: Work, parts: Mapping[str, Entry], documents: Path) -> None:
        """Replace what is there by the files `parts` of the work folder and the files in `documents`."""
        texts = {
            path.relative_to(documents).as_posix(): path.read_bytes() for path in documents.rglob("*") if path.is_file()
        }
        entries = {name: Entry(len(data), hashlib.sha256(data).hexdigest()) for name, data in texts.items()}
        with self._storage.publishing(self._name, dict(sorted({**entries, **parts}.items()))) as target:
            target.write(CARD, texts.pop(CARD))
            for name, data in texts.items():
                target.write(name, data)
            for name in parts:
                target.write(name, here.storage.read(f"{work.PRODUCT}/{name}"))
