"""What all commands share: options, logging, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jobs import settings
from jobs.errors import HaetsalError, Interrupted, UsageError
from jobs.redact import redact
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage

_CHATTY = (
    "accelerate",
    "aiobotocore",
    "alembic",
    "botocore",
    "datasets",
    "fsspec",
    "httpx",
    "matplotlib",
    "mlflow",
    "ray.data",
    "ray.train",
    "ray.tune",
    "trl",
)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of every job: `--config` and `--set`."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file of settings (default: the built-in ones)"
    )
    result.add_argument(
        "--set",
        dest="overrides",
        default="",
        metavar="'A.B=C …'",
        help="single settings over the file, or @FILE for a second file over the first",
    )
    return result


def unfinished(job: str, run_id: str, given: Settings) -> tuple[Run, Settings]:
    """The run of `job` that `--resume` names, and its own settings. `given` may only say where it is.

    Raises UsageError for other settings, an unknown run, one of another job, and one that is finished.
    """
    if given != Settings(storage=given.storage):
        raise UsageError("RESUME goes on under the run's own settings; give no CONFIG and no SET but storage.root")
    run = Run.open(Storage(given.storage.root), run_id)
    if not run_id.startswith(f"{job}-"):
        raise UsageError(f"{run_id}: is no run of make {job}")
    if run.finished:
        raise UsageError(f"{run.id}: is finished; its report is at {run.address('report')}")
    return run, settings.from_yaml(run.config(), run.address("config.yaml"))


def main(command: Callable[[], None]) -> None:
    """Run `command`; turn a HaetsalError into one line on stderr and its exit code. Never returns."""
    # Read by transformers at import: its warnings are about itself, its errors are exceptions.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        command()
        code = 0
    except HaetsalError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = Interrupted.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what it wanted, it has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
