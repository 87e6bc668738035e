"""Promote and roll back. The pipeline and the commands come through here; there is no other way to a new champion.

First the log takes the decision (compare-and-set: of two at once one wins), then MLflow's alias follows, then the
entry is marked as applied. Whoever comes after a crash between these finishes the work of the dead one first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.errors import UsageError
from jobs.registry import history
from jobs.registry.history import Conflict, Entry, History
from jobs.registry.versions import CHALLENGER, CHAMPION, Registry


@dataclass(frozen=True)
class Serving:
    """Who serves, as the log has it, and the number of the entry that says so (0: nobody was ever promoted)."""

    champion: str | None
    entry: int


@dataclass(frozen=True)
class Office:
    """Where champions are made."""

    registry: Registry
    history: History
    clock: Callable[[], float] = time.time

    def serving(self) -> Serving:
        """Who serves. An alias that is late after a crash is brought up to date.

        Raises Conflict if it was moved by hand.
        """
        return self._settled(self.history.entries(), accepting=None)

    def promote(self, number: str, by: str, reason: str, expected: Serving | None = None) -> Entry:
        """Make a version the champion, if the champion is still the `expected` one (none given: the present one).

        Doing it again for the same `by` gives the entry that is there. Naming the version at which somebody put the
        alias by hand enters that into the log; naming the log's puts the alias back. Raises Conflict if somebody else
        was first, UsageError for a version that is not there or serves already.
        """
        self.registry.version(number)
        entries = self.history.entries()
        done = [entry for entry in entries if entry.by == by and entry.kind == "promote" and entry.to == number]
        if done and expected is not None:
            self._settled(entries, accepting=number)
            return done[-1]
        moved_by_hand = self._is_moved_by_hand(entries)
        now = self._settled(entries, accepting=number)
        if expected is not None and now != expected:
            by_whom = f", but {entries[-1].by} made version {now.champion or '-'} champion meanwhile" if entries else ""
            raise Conflict(
                f"{self.registry.name}: version {number} was compared with champion {expected.champion or '-'}"
                f"{by_whom}; run the pipeline again"
            )
        if now.champion != number:
            return self._change("promote", now, number, by, reason)
        if not moved_by_hand:
            raise UsageError(f"{self.registry.name}: version {number} is the champion already")
        self.registry.point(CHAMPION, number)
        return entries[-1]

    def roll_back(self, by: str, reason: str) -> Entry:
        """Bring back the champion before this one. Raises UsageError if there was none, Conflict like `promote`."""
        entries = self.history.entries()
        now = self._settled(entries, accepting=None)
        target = history.before_champion(entries)
        if target is None:
            raise UsageError(f"{self.registry.name}: there is no earlier champion to roll back to")
        self.registry.version(target)
        return self._change("rollback", now, target, by, reason)

    def _change(self, kind: Literal["promote", "rollback"], now: Serving, to: str, by: str, reason: str) -> Entry:
        entry = Entry(now.entry + 1, kind, now.champion, to, by, reason, self.clock())
        self.history.append(entry)
        self._apply(entry)
        return entry

    def _apply(self, entry: Entry) -> None:
        """Let the alias follow. Who was overtaken meanwhile brings it to where the newest entry wants it."""
        while True:
            self.registry.point(CHAMPION, entry.to)
            if self.registry.aliases().get(CHALLENGER) == entry.to:
                self.registry.point(CHALLENGER, None)
            self.history.mark_applied(entry)
            newest = self.history.entries()[-1]
            if newest.number == entry.number:
                return
            entry = newest

    def _is_moved_by_hand(self, entries: Sequence[Entry]) -> bool:
        unfinished = bool(entries) and not self.history.is_applied(entries[-1])
        if unfinished or self.registry.aliases().get(CHAMPION) == history.champion(entries):
            return False
        # Else somebody has promoted since `entries` were read, and the alias followed.
        return len(self.history.entries()) == len(entries)

    def _settled(self, entries: Sequence[Entry], accepting: str | None) -> Serving:
        """Who serves by the log, with the work of a dead one finished.

        An alias that was moved by hand is a Conflict, unless a person named one of the two versions (`accepting`).
        """
        logged = history.champion(entries)
        if entries and not self.history.is_applied(entries[-1]):
            self._apply(entries[-1])
        elif self._is_moved_by_hand(entries):
            alias = self.registry.aliases().get(CHAMPION)
            choices = [version for version in (alias, logged) if version]
            if accepting not in choices:
                raise Conflict(
                    f"{self.registry.name}: alias {CHAMPION} is at version {alias or '-'}, but the promotion log says "
                    f"{logged or '-'}: it was moved by hand. Keep one of them: "
                    + " or ".join(f"make promote VERSION={version}" for version in choices)
                )
        return Serving(logged, len(entries))
