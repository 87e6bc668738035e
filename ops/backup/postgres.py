"""PostgreSQL by its own programs: pg_dump and pg_restore in their custom format, psql for everything else.

The password comes from PGPASSFILE or PGPASSWORD. The dump is not compressed by pg_dump: compressed, a changed row would
change everything after it, and no piece would be found in the store again.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from jobs.errors import EnvironmentNotReady, IntegrityError, RemoteError
from ops.backup.database import REGISTRY, Database, Found, Snapshot

_LOCK_WAIT_S = 30
_MARK = "restored from "
_COMPLETE = "SELECT set_config('haetsal.complete', 'yes', true)"
_PIPE_BYTES = 1024 * 1024
_SETTINGS = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]


class Postgres:
    """One database, by its libpq address."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url
        self._where = urlsplit(url)._replace(query="").geturl()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """pg_dump and the counts look at the same snapshot, which a psql session holds open."""
        self._check_version()
        with _Session(self._command("psql", *_SETTINGS), self._where) as session:
            session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
            name = session.ask("SELECT pg_export_snapshot();")[0]
            rows = _counts(session.ask)
            if "alembic_version" not in rows:
                raise EnvironmentNotReady(f"{self._where}: holds no MLflow tables; check mlflow.database")
            revision = session.ask("SELECT version_num FROM alembic_version;")[0]
            registry = {key: _table(session.ask, sql) for key, sql in REGISTRY.items()}
            command = self._command("pg_dump", "--format=custom", "--compress=0", f"--snapshot={name}", "--no-owner")
            with _Process(command, self._where, stdout=True) as dump:
                yield Snapshot(dump.output, revision, rows, registry)

    def find(self) -> Found:
        with _Session(self._command("psql", *_SETTINGS), self._where) as session:
            rows = _counts(session.ask)
            if "alembic_version" not in rows:
                return Found(rows=rows)
            revision = session.ask("SELECT version_num FROM alembic_version")[0]
            comment = "".join(session.ask("SELECT obj_description('public'::regnamespace)"))
        return Found(revision, comment.removeprefix(_MARK) if comment.startswith(_MARK) else None, rows)

    def restore(self, dump: Iterator[bytes], rows: dict[str, int], backup_id: str) -> None:
        """pg_restore turns the dump into SQL, psql runs it between an emptying and a comparison, in one transaction.

        The comparison also wants a last word that this process says when pg_restore has succeeded: if the dump breaks
        off, psql rolls back, even if this process is gone by then.
        """
        begin = (
            f"SET lock_timeout = '{_LOCK_WAIT_S}s'; SET client_min_messages = warning; "
            "DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public"
        )
        commands = ["--command", begin, "--file=-", "--command", f"{_compare(rows)}; {_mark(backup_id)}"]
        psql = self._command("psql", *_SETTINGS, "--output=/dev/null", "--single-transaction", *commands)
        with _Process(psql, self._where, stdin=True) as target:
            convert = ["pg_restore", "--file=-", "--no-owner", "--no-privileges", "--exit-on-error"]
            try:
                with _Process(convert, self._where, stdin=True, stdout=target.input) as source:
                    source.feed(dump)
            except IntegrityError:
                if not target.ended:
                    raise
                return  # psql ended first and knows why; leaving its context tells
            target.feed(iter([f"{_COMPLETE};\n".encode()]))

    @contextmanager
    def scratch(self, name: str) -> Iterator[Database]:
        self._ask(f'CREATE DATABASE "{name}" TEMPLATE template0')
        try:
            parts = urlsplit(self._url)
            yield Postgres(urlunsplit(parts._replace(path=f"/{name}")))
        finally:
            self._ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def drop_scratch(self, prefix: str) -> None:
        for name in self._ask(f"SELECT datname FROM pg_database WHERE starts_with(datname, '{prefix}')"):
            self._ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _command(self, program: str, *options: str) -> list[str]:
        if shutil.which(program) is None:
            raise EnvironmentNotReady(f"{program} is not on PATH; install PostgreSQL's client programs")
        return [program, "--no-password", f"--dbname={self._url}", *options]

    def _ask(self, sql: str) -> list[str]:
        with _Process(self._command("psql", *_SETTINGS, "--command", sql), self._where, stdout=True) as process:
            return process.output.read().decode().splitlines()

    def _check_version(self) -> None:
        """pg_dump refuses servers that are newer than itself; say so before anything is written."""
        server = int(self._ask("SHOW server_version_num")[0]) // 10_000
        said = subprocess.run([*self._command("pg_dump")[:1], "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"(\d+)", said.stdout)
        if found and int(found[1]) < server:
            raise EnvironmentNotReady(
                f"pg_dump {found[1]} cannot dump PostgreSQL {server} ({self._where}); install client {server} or newer"
            )


class _Process:
    """A program with pipes. Leaving the context waits for it and raises if it failed; after an error it is killed."""

    def __init__(self, command: list[str], where: str, stdin: bool = False, stdout: bool | IO[bytes] = False) -> None:
        self._name, self._where = command[0], where
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        out = stdout if not isinstance(stdout, bool) else subprocess.PIPE if stdout else subprocess.DEVNULL
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=source, stdout=out, stderr=self._said, bufsize=0, pipesize=_PIPE_BYTES
        )

    @property
    def input(self) -> IO[bytes]:
        assert self._process.stdin
        return self._process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout
        return self._process.stdout

    @property
    def ended(self) -> bool:
        """Whether the program is gone already."""
        return self._process.poll() is not None

    def feed(self, data: Iterator[bytes]) -> None:
        """Write everything. A program that stopped reading has failed, which leaving the context tells."""
        try:
            for part in data:
                view = memoryview(part)
                while view:
                    view = view[self.input.write(view) :]
        except BrokenPipeError:
            return

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        self._said.close()
        if kind is None and code != 0:
            raise _explain(self._name, self._where, said)


class _Session:
    """psql that is asked one thing after another."""

    _END = "haetsal-end"

    def __init__(self, command: list[str], where: str) -> None:
        self._process = _Process(command, where, stdin=True, stdout=True)
        self._where = where

    def ask(self, sql: str) -> list[str]:
        """Rows of the answer, one line each."""
        self._process.feed(iter([f"{sql.rstrip(';')};\n\\echo {self._END}\n".encode()]))
        lines: list[str] = []
        for line in _text_lines(self._process.output):
            if line == self._END:
                return lines
            lines.append(line)
        raise _Stopped

    def __enter__(self) -> _Session:
        self._process.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # A session that stopped by itself has said why; that is the error then.
        self._process.__exit__(None if kind is _Stopped else kind, error, trace)


class _Stopped(Exception):
    """psql ended in the middle of a conversation."""


def _text_lines(pipe: IO[bytes]) -> Iterator[str]:
    """Lines of an unbuffered pipe, which must not be read beyond the line that was asked for."""
    line = bytearray()
    while byte := pipe.read(1):
        if byte == b"\n":
            yield line.decode()
            line.clear()
        else:
            line += byte


def _counts(ask: Any) -> dict[str, int]:
    tables = ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    if not tables:
        return {}
    union = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM public.\"{table}\"" for table in tables)
    return {name: int(count) for name, _, count in (line.rpartition("|") for line in ask(union))}


def _table(ask: Any, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads("".join(ask(f"SELECT coalesce(json_agg(t), '[]') FROM ({sql}) t")))
    return rows


def _compare(rows: dict[str, int]) -> str:
    """SQL that raises unless the dump was complete and every table has its rows."""
    checks = " ".join(
        f"""SELECT count(*) INTO n FROM public."{table}"; IF n <> {count} THEN
        RAISE EXCEPTION 'haetsal: % has % rows, the backup {count}', '{table}', n; END IF;"""
        for table, count in rows.items()
    )
    complete = """IF current_setting('haetsal.complete', true) IS DISTINCT FROM 'yes' THEN
        RAISE EXCEPTION 'haetsal: the dump broke off'; END IF;"""
    return f"DO $check$ DECLARE n bigint; BEGIN {complete} {checks} END $check$"


def _mark(backup_id: str) -> str:
    return f"COMMENT ON SCHEMA public IS '{_MARK}{backup_id}'"


def _explain(program: str, where: str, said: str) -> EnvironmentNotReady | IntegrityError | RemoteError:
    line = next((line for line in said.splitlines() if line.strip()), "it failed without a word")
    if "haetsal:" in said or ("relation" in said and "does not exist" in said) or program == "pg_restore":
        return IntegrityError(f"{where}: the dump is not whole, nothing was changed ({line})")
    if "lock timeout" in said:
        return EnvironmentNotReady(f"{where}: somebody uses the database; stop MLflow, then restore again ({line})")
    if "connection to server" in said and ("refused" in said or "timeout" in said or "translate host" in said):
        return RemoteError(f"{where}: the database does not answer ({line})")
    return EnvironmentNotReady(f"{where}: {program}: {line}")
