"""The one way to MLflow: time limits, a database that is complete or not there, and errors for people."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import RemoteError
from jobs.redact import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"


class Rejected(RemoteError):
    """MLflow answered and refused: wrong credentials, or a run or experiment deleted there. Exit code 4."""


def connect(uri: str, timeout_s: float) -> MlflowClient:
    """A client of the tracking server and registry at `uri`; a missing SQLite database is created.

    This imports MLflow, which takes 5 to 15 seconds of CPU. It does not talk to a server yet. MLflow takes its time
    limits from the environment only; retrying is the callers' business, telemetry nobody's.
    """
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(math.ceil(timeout_s))
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow import MlflowClient

    with explained(uri):
        if uri.startswith(SQLITE):
            _create_database(Path(uri.removeprefix(SQLITE)))
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow, its HTTP client and its database raise within into RemoteError or Rejected."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        status: int = error.get_http_status_code()
        kind = Rejected if 400 <= status < 500 else RemoteError
        raise kind(_one_line(uri, error)) from error
    except (OSError, SQLAlchemyError, json.JSONDecodeError) as error:  # no connection, or an answer that is not JSON
        raise RemoteError(_one_line(uri, error)) from error


def _one_line(uri: str, error: Exception) -> str:
    return f"MLflow at {uri}: {redact(' '.join(str(error).split()))[:300]}"


def _create_database(path: Path) -> None:
    """Make a missing SQLite database complete or not at all.

    MLflow creates its tables step by step: a crash in between leaves a database that it refuses ever after, and two
    first runs at once trip over each other's tables.
    """
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        store = SqlAlchemyStore(f"{SQLITE}{partial}", str(path.parent))
        store.engine.dispose()
        os.link(partial, path)
    except FileExistsError:
        pass  # another run was faster; its database is as good
    finally:
        partial.unlink(missing_ok=True)
