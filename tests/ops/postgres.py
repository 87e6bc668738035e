"""A throw-away PostgreSQL server, and MLflow's tables in a database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def find_programs() -> Path | None:
    """Folder of initdb and postgres: Debian keeps them off PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    programs: Path
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self.port}/{database}"

    def ask(self, sql: str, database: str = "postgres") -> list[str]:
        command = ["psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        done = subprocess.run(
            [*command, f"--dbname={self.url(database)}"], input=sql, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def create(self, database: str) -> str:
        """An empty database; returns its address."""
        self.ask(f'CREATE DATABASE "{database}"')
        return self.url(database)

    @contextmanager
    def locked(self, database: str, table: str) -> Iterator[None]:
        """Somebody who reads a table in a transaction that stays open."""
        command = ["psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", f"--dbname={self.url(database)}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin and process.stdout
        process.stdin.write(f"BEGIN;\nLOCK TABLE {table} IN ACCESS SHARE MODE;\n\\echo locked\n")
        process.stdin.flush()
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.communicate()

    def wait_for_blocked(self, database: str) -> None:
        """Until a session waits for a lock."""
        self._wait(
            f"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        )

    def wait_for_idle(self, database: str) -> None:
        """Until nobody is connected any more."""
        self._wait(f"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{database}'")

    def _wait(self, sql: str) -> None:
        deadline = time.monotonic() + 30
        while self.ask(sql) != ["t"]:
            assert time.monotonic() < deadline, sql
            time.sleep(0.02)


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server as an unprivileged user: PostgreSQL refuses to be root."""
    programs = find_programs()
    assert programs
    with tempfile.TemporaryDirectory(prefix="haetsal-pg-") as name, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.close()
        folder = Path(name)
        user = "postgres" if os.getuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        initdb = [programs / "initdb", "--username=mlflow", "--auth=trust", "--no-sync", f"--pgdata={folder / 'data'}"]
        subprocess.run(
            [*initdb, "--encoding=UTF8", "--locale=C"], user=user, check=True, capture_output=True, cwd=folder
        )
        options = ["-c", "fsync=off", "-c", "shared_buffers=64MB", "-c", "max_wal_size=2GB"]
        server = subprocess.Popen(
            [
                programs / "postgres",
                "-D",
                folder / "data",
                "-p",
                str(port),
                "-k",
                str(folder),
                "-h",
                "127.0.0.1",
                *options,
            ],
            user=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "30", "-q"]
        try:
            while subprocess.run(ready, check=False).returncode != 0:
                assert server.poll() is None, "postgres does not start"
            yield Server(programs, port)
        finally:
            server.terminate()
            server.wait()


MLFLOW_TABLES = """
CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY);
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name TEXT, experiment_id INTEGER REFERENCES experiments);
CREATE TABLE metrics (key TEXT NOT NULL, value DOUBLE PRECISION NOT NULL, timestamp BIGINT NOT NULL,
    run_uuid VARCHAR(32) NOT NULL REFERENCES runs, step BIGINT NOT NULL, is_nan BOOLEAN NOT NULL,
    PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));
CREATE TABLE registered_models (name VARCHAR(256) PRIMARY KEY, description TEXT);
CREATE TABLE model_versions (name VARCHAR(256) REFERENCES registered_models, version INTEGER, source TEXT,
    run_id VARCHAR(32), status TEXT, PRIMARY KEY (name, version));
CREATE TABLE registered_model_aliases (name VARCHAR(256) REFERENCES registered_models, alias VARCHAR(256),
    version INTEGER NOT NULL, PRIMARY KEY (name, alias));
"""
"""Tables of MLflow's schema in its names and types, for tests that need no server."""

MLFLOW_ROWS = """
INSERT INTO alembic_version VALUES ('a1b2c3d4e5f6');
INSERT INTO experiments VALUES (0, 'Default'), (1, '한국어 미세조정');
INSERT INTO runs VALUES ('00000000000000000000000000000001', 'train-1', 1);
INSERT INTO metrics VALUES ('loss', 1.5, 1, '00000000000000000000000000000001', 1, false);
INSERT INTO registered_models VALUES ('haetsal-ko', '챗봇');
INSERT INTO model_versions VALUES
    ('haetsal-ko', 1, '/models/1', '00000000000000000000000000000001', 'READY'),
    ('haetsal-ko', 2, '/models/2', '00000000000000000000000000000001', 'READY');
INSERT INTO registered_model_aliases VALUES ('haetsal-ko', 'champion', 1), ('haetsal-ko', 'challenger', 2);
"""
