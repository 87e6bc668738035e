"""What all commands share: options, logging, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jobs.errors import HaetsalError, Interrupted
from jobs.redact import redact

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
