"""A platform in a namespace, and the commands as a user runs them, in this process or in one of their own."""

from __future__ import annotations

import io
import multiprocessing
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import rayapi
from apiserver import Kube
from postgres import MLFLOW_ROWS, MLFLOW_TABLES
from rayapi import Namespace

from jobs import cli
from ops import cost, drill, retention
from ops.backup import __main__ as backup_command
from ops.backup.objects import Objects, open_objects
from ops.health import __main__ as health_command
from ops.restore import __main__ as restore_command
from ops.settings import StoreSettings

_COMMANDS = {
    "backup": backup_command.command,
    "restore": restore_command.command,
    "drill": drill.command,
    "retention": retention.command,
    "cost": cost.command,
    "health": health_command.command,
}


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["platform_under_test"])


def _child(name: str, argv: list[str], environ: dict[str, str]) -> None:
    os.environ.update(environ)
    sys.argv = argv
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        cli.main(_COMMANDS[name])


def point_at(s3: str, environment: pytest.MonkeyPatch) -> None:
    """Let every AWS client of this process talk to that server."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        environment.setenv(name, value)
    environment.delenv("AWS_PROFILE", raising=False)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def backup_id(self) -> str:
        """Id that a successful backup printed."""
        assert self.code == 0, self.err
        return self.out.split()[0]

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


def run(command_line: list[str]) -> Done:
    """A command in this process, which has paid for the imports."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with patch.object(sys, "argv", command_line), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main(_COMMANDS[command_line[0]])
        except SystemExit as ended:
            code = ended.code
    return Done(int(code), out.getvalue(), err.getvalue())


def start(command_line: list[str]) -> BaseProcess:
    """A command in a process of its own, forked from one that has paid for the imports."""
    environ = {key: value for key, value in os.environ.items() if key.startswith(("AWS_", "KUBE", "PG"))}
    process = _FORKS.Process(target=_child, args=(command_line[0], command_line, environ))
    process.start()
    return process


@dataclass(frozen=True)
class Platform:
    """Where everything is."""

    namespace: Namespace
    scratch: Namespace
    database: Path
    settings: tuple[tuple[str, Any], ...]

    @classmethod
    def make(cls, kube: Kube, name: str, store: str, folder: Path, filled: bool = True) -> Platform:
        """A namespace with a platform, an empty one for drills, and an MLflow database in SQLite."""
        namespace = Namespace(kube, name)
        if filled:
            rayapi.platform(namespace)
        database = folder / "mlflow.db"
        with closing(sqlite3.connect(database)) as connection:
            connection.executescript(MLFLOW_TABLES + MLFLOW_ROWS)
        settings = {
            "cluster.namespace": name,
            "cluster.lease_s": 1,
            "cluster.request_timeout_s": 5,
            "drill.namespace": f"{name}-drill",
            "store.root": store,
            "store.request_timeout_s": 2,
            "mlflow.database": f"sqlite:///{database}",
            "restore.health_timeout_s": 10,
        }
        return cls(namespace, Namespace(kube, f"{name}-drill"), database, tuple(settings.items()))

    def with_(self, **values: Any) -> Platform:
        """Other settings; `__` stands for the dot of a key."""
        more = {key.replace("__", "."): value for key, value in values.items()}
        return replace(self, settings=tuple((dict(self.settings) | more).items()))

    def command_line(self, name: str, *arguments: str) -> list[str]:
        return [name, "--set", " ".join(f"{key}={value}" for key, value in self.settings), *arguments]

    def run(self, name: str, *arguments: str) -> Done:
        """A command in this process, which has paid for the imports."""
        return run(self.command_line(name, *arguments))

    def start(self, name: str, *arguments: str) -> BaseProcess:
        """A command in a process of its own, forked from one that has paid for the imports."""
        return start(self.command_line(name, *arguments))

    @contextmanager
    def operator(self, namespace: Namespace | None = None) -> Iterator[None]:
        """Somebody who says of everything that is awake that it is up, for as long as the block runs."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.05):
                (namespace or self.namespace).come_up()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def versions(self) -> dict[str, str]:
        """What changes when anything in the namespace is written: every object's version of its spec."""
        found = {}
        for kind in ("ConfigMap", *rayapi.SPECS):
            for name in self.namespace.names(kind):
                item = self.namespace.get(kind, name)
                assert item
                metadata = item["metadata"]
                key = metadata["resourceVersion"] if kind == "ConfigMap" else str(metadata["generation"])
                found[f"{kind}/{name}"] = f"{metadata['uid']}/{key}"
        return found

    @property
    def objects(self) -> Objects:
        """The store."""
        return open_objects(StoreSettings(root=str(dict(self.settings)["store.root"])))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the SQLite database."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(sql).fetchall()
