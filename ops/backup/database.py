"""MLflow's database as a stream and back: `open_database` gives SQLite or PostgreSQL behind one protocol.

A dump is one consistent snapshot, with the row counts of that very snapshot. A restore is one transaction that compares
the counts before it commits: killed at any moment, the database is what it was before, or what was saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.errors import UsageError
from ops.backup.chunks import Readable

REGISTRY = {
    "models": "SELECT name, description FROM registered_models ORDER BY name",
    "versions": "SELECT name, version, source, run_id, status FROM model_versions ORDER BY name, version",
    "aliases": "SELECT name, alias, version FROM registered_model_aliases ORDER BY name, alias",
}
"""What people ask a registry, readable without a database server."""


@dataclass(frozen=True)
class Snapshot:
    """A dump that is being read, and what the database held at that moment."""

    stream: Readable
    revision: str
    """Alembic's revision of the schema."""
    rows: dict[str, int]
    registry: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Found:
    """A database as a restore finds it."""

    revision: str | None = None
    """None: it holds no MLflow tables yet."""
    restored_from: str | None = None
    """Id of the backup that it was last restored from."""
    rows: dict[str, int] = field(default_factory=dict)


class Database(Protocol):
    """MLflow's database. Methods raise EnvironmentNotReady where it, or a program for it, cannot be used."""

    dialect: str

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A consistent dump. Leaving the context after the stream's end raises if the dump failed."""

    def find(self) -> Found:
        """What is there now."""

    def restore(self, dump: Iterator[bytes], rows: dict[str, int], backup_id: str) -> None:
        """Replace everything by `dump`, all or nothing. Raises IntegrityError if the result has not `rows`."""

    def drop_scratch(self, prefix: str) -> None:
        """Drop what killed drills left: scratch databases whose name begins with `prefix`."""

    def scratch(self, name: str) -> AbstractContextManager[Database]:
        """An empty database beside this one, for a drill; dropped in the end."""


def open_database(url: str) -> Database:
    """The database that a SQLAlchemy address names."""
    from ops.backup.postgres import Postgres
    from ops.backup.sqlite import Sqlite

    scheme, _, rest = url.partition("://")
    match scheme.partition("+")[0]:
        case "sqlite":
            return Sqlite(rest.removeprefix("/"))
        case "postgresql" | "postgres":
            return Postgres(f"postgresql://{rest}")
    raise UsageError(f"mlflow.database {url}: must be sqlite:///… or postgresql://…")


def rows_from(detail: str) -> dict[str, int]:
    """Row counts as an item's detail holds them."""
    return {str(table): int(count) for table, count in json.loads(detail).items()}
