"""The promotion log: who served when, and why. Append-only, because MLflow's aliases have no history.

Entry n is the file `registry/<model>/promotions/<n>.json`, and only one of several racing writers can create it: that
is the compare-and-set, on a disk and on S3 alike. An entry is the decision. The alias follows it, and then
`<n>.applied` says that it did, so that whoever finds an entry without that file knows the alias to be late, and an
alias that differs from an applied entry to have been moved by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from jobs.errors import IntegrityError
from jobs.storage import AlreadyExists, Storage

_DIGITS = 6


@dataclass(frozen=True)
class Entry:
    """One change of the champion. `before` is None for the first champion, `to` None for a rollback to no model."""

    number: int
    """Counts from 1."""
    kind: Literal["promote", "rollback"]
    before: str | None
    """Version that served until then."""
    to: str | None
    """Version that serves from then on."""
    by: str
    """Run id of the pipeline, or the user and machine that typed the command."""
    reason: str
    time_unix_s: float


class Conflict(IntegrityError):
    """Somebody else changed the champion first, or moved its alias by hand. Exit code 5."""


@dataclass(frozen=True)
class History:
    """The log of one registered model."""

    storage: Storage
    model: str

    def entries(self) -> list[Entry]:
        """All entries, oldest first. Raises IntegrityError if one is missing or damaged."""
        names = [name for name in self.storage.list(self._folder) if name.endswith(".json")]
        found = [self._read(name) for name in names]
        for number, entry in enumerate(found, start=1):
            if entry.number != number:
                raise IntegrityError(f"{self.storage.address(self._folder)}: entry {number} is missing; restore it")
        return found

    def append(self, entry: Entry) -> None:
        """Add the next entry; raises Conflict for all but one of those who add the same number."""
        data = json.dumps(asdict(entry), ensure_ascii=False, indent=1).encode()
        try:
            self.storage.create(self._file(entry.number), data)
        except AlreadyExists:
            first = self._read(f"{entry.number:0{_DIGITS}}.json")
            raise Conflict(
                f"{self.model}: the champion was changed at the same time by {first.by} (version {first.before or '-'} "
                f"-> {first.to or '-'}); look at `make registry` and decide again"
            ) from None

    def is_applied(self, entry: Entry) -> bool:
        """Whether the alias has followed."""
        return self.storage.exists(self._mark(entry))

    def mark_applied(self, entry: Entry) -> None:
        """Say that the alias has followed; doing it again changes nothing."""
        self.storage.write(self._mark(entry), b"")

    @property
    def _folder(self) -> str:
        return f"registry/{self.model}/promotions"

    def _file(self, number: int) -> str:
        return f"{self._folder}/{number:0{_DIGITS}}.json"

    def _mark(self, entry: Entry) -> str:
        return f"{self._folder}/{entry.number:0{_DIGITS}}.applied"

    def _read(self, name: str) -> Entry:
        address = f"{self._folder}/{name}"
        try:
            return Entry(**json.loads(self.storage.read(address)))
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{self.storage.address(address)}: is no entry of the log ({error})") from None


def champion(entries: Sequence[Entry]) -> str | None:
    """The version that the log says serves."""
    return entries[-1].to if entries else None


def before_champion(entries: Sequence[Entry]) -> str | None:
    """The version that a rollback brings back: rollbacks take promotions back one by one, newest first."""
    served: list[str | None] = [None]
    for entry in entries:
        if entry.kind == "promote":
            served.append(entry.to)
        else:
            served.pop()
    return served[-2] if len(served) > 1 else None
