"""SQLite by its online backup, which works while MLflow writes."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from jobs.errors import EnvironmentNotReady, IntegrityError
from ops.backup.database import REGISTRY, Database, Found, Snapshot

_MARK = "haetsal_restored"
"""Table with the id of the backup that the file was restored from. A restore writes it in its own transaction."""
_LOCK_WAIT_S = 30


class Sqlite:
    """One database file."""

    dialect = "sqlite"

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The copy lies beside the temporary files for as long as it is read."""
        with _temporary() as copy:
            with self._open() as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                rows = _counts(target)
                if "alembic_version" not in rows:
                    raise EnvironmentNotReady(f"{self._path}: holds no MLflow tables; check mlflow.database")
                revision = str(target.execute("SELECT version_num FROM alembic_version").fetchone()[0])
                registry = {key: _table(target, sql) for key, sql in REGISTRY.items()}
            with copy.open("rb") as stream:
                yield Snapshot(stream, revision, rows, registry)

    def find(self) -> Found:
        if not self._path.is_file():
            return Found()
        with self._open() as connection:
            rows = _counts(connection)
            if "alembic_version" not in rows:
                return Found(rows=rows)
            revision = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
            mark = None
            if _MARK in _tables(connection):
                mark = str(connection.execute(f"SELECT backup FROM {_MARK}").fetchone()[0])
            return Found(revision, mark, rows)

    def restore(self, dump: Iterator[bytes], rows: dict[str, int], backup_id: str) -> None:
        """The dump becomes a file, is checked, and is then copied over the database in one transaction."""
        with _temporary() as copy:
            with copy.open("wb") as file:
                for part in dump:
                    file.write(part)
            with closing(sqlite3.connect(copy)) as source:
                try:
                    whole = source.execute("PRAGMA integrity_check").fetchone()[0] == "ok" and _counts(source) == rows
                except sqlite3.DatabaseError:
                    whole = False
                if not whole:
                    raise IntegrityError(f"{self._path}: the dump is not whole, nothing was changed")
                with source:
                    source.execute(f"CREATE TABLE IF NOT EXISTS {_MARK} (backup TEXT)")
                    source.execute(f"DELETE FROM {_MARK}")
                    source.execute(f"INSERT INTO {_MARK} VALUES (?)", (backup_id,))
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._open(create=True) as target:
                    source.backup(target)

    def drop_scratch(self, prefix: str) -> None:
        """Scratch databases are temporary files, which the system cleans."""

    @contextmanager
    def scratch(self, name: str) -> Iterator[Database]:
        with tempfile.TemporaryDirectory(prefix=name) as folder:
            yield Sqlite(str(Path(folder) / "mlflow.db"))

    @contextmanager
    def _open(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        mode = "rwc" if create else "rw"
        try:
            connection = sqlite3.connect(f"file:{self._path}?mode={mode}", uri=True, timeout=_LOCK_WAIT_S)
            with closing(connection):
                yield connection
        except sqlite3.Error as error:
            raise EnvironmentNotReady(f"{self._path}: {error}; check mlflow.database, stop MLflow to restore") from None


@contextmanager
def _temporary() -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix="haetsal-", suffix=".db")
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink()


def _tables(connection: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1"
    return [str(name) for (name,) in connection.execute(sql)]


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Rows by table; the mark is no data."""
    tables = [table for table in _tables(connection) if table != _MARK]
    return {table: int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]) for table in tables}


def _table(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
