"""The audit log: one object a decision or outcome, created once and never written again.

audit/<yyyy-mm-dd>/<hhmmss.ffffff>-<8 hex>.json      beside the backups, under their Object Lock
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from jobs.errors import HaetsalError
from jobs.storage import AlreadyExists
from ops.backup.objects import Objects

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    id: str
    at: datetime
    """The look that it belongs to."""
    event: str
    """decided, ended or healed"""
    scope: str
    finding: str
    what: str
    """The repair."""
    said: str
    """Why, or with what outcome."""
    number: int = 0
    """Given when it is remembered."""

    @property
    def name(self) -> str:
        """Where it lies; the same whenever it is sent again."""
        return f"audit/{self.at:%Y-%m-%d}/{self.at:%H%M%S.%f}-{self.number:06d}-{self.id}.json"


def entry(at: datetime, event: str, scope: str, finding: str, what: str, said: str) -> Entry:
    """A new entry."""
    return Entry(secrets.token_hex(4), at, event, scope, finding, what, said)


def ship(objects: Objects, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Create each entry in the store. Returns those that it does not take now; they are sent again later."""
    for number, one in enumerate(entries):
        body = asdict(one) | {"at": one.at.isoformat()}
        try:
            objects.create(one.name, json.dumps(body, ensure_ascii=False).encode() + b"\n")
        except AlreadyExists:  # sent before, and its answer was lost
            continue
        except HaetsalError as error:
            _log.warning("%d audit entries wait: %s", len(entries) - number, error)
            return tuple(entries[number:])
    return ()
