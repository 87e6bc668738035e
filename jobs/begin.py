"""How a job comes by a run that is there already: a person resumes it, or a cluster works on it attempt by attempt."""

from __future__ import annotations

import argparse
import sys

from jobs import settings
from jobs.costs import month
from jobs.errors import HaetsalError, UsageError
from jobs.runs import Run, last_end
from jobs.settings import Settings
from jobs.storage import Storage


class Repeated(HaetsalError):
    """An earlier attempt failed for a reason that is in its input; this one did not even try."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `named_run`."""
    parser.add_argument("--resume", metavar="RUN_ID", help="go on with an unfinished run, under its own settings")
    parser.add_argument(
        "--take-over", action="store_true", help="with --resume: whoever works on the run elsewhere is superseded"
    )
    parser.add_argument(
        "--run-id",
        metavar="RUN_ID",
        help="what a cluster gives: the run that CONFIG was submitted as, begun or gone on with; "
        "an earlier attempt that still works on it is superseded",
    )


def named_run(job: str, arguments: argparse.Namespace, given: Settings) -> tuple[Run, Settings] | None:
    """The run that the command line names and the settings that it goes on under; None if it names none.

    Ends the process with success if an attempt has nothing left to do. Raises UsageError for an unknown run, one of
    another job, other settings than its own, and for a finished one that is to be resumed; Repeated for an attempt
    after one that failed for good; BudgetSpent where the month's budget is.
    """
    storage = Storage(given.storage.root)
    name = arguments.resume or arguments.run_id
    if not name:
        return None
    if not name.startswith(f"{job}-"):
        raise UsageError(f"{name}: is no run of make {job}")
    if arguments.resume:
        if given != Settings(storage=given.storage):
            raise UsageError("RESUME goes on under the run's own settings; give no CONFIG and no SET but storage.root")
        run = Run.open(storage, name)
        if run.finished:
            raise UsageError(f"{run.id}: is finished; its report is at {run.address('report')}")
        run.supersedes = arguments.take_over
        tree = settings.from_yaml(run.config(), run.address("config.yaml"))
        month.check(tree, storage)
        return run, tree
    run = Run.attempt(storage, name, settings.to_yaml(given))
    if settings.from_yaml(run.config(), run.address("config.yaml")) != given:
        raise UsageError(f"{run.address('config.yaml')}: this run has other settings; give it a new id")
    if run.finished:
        print(f"run {run.id}\n  {run.address()}\nis finished; there is nothing left to do")
        sys.exit(0)
    end = last_end(run)
    if end and end.exit_code in (UsageError.exit_code, 5):
        error = Repeated(f"not tried again, because the attempt before failed with: {end.reason}")
        error.exit_code = end.exit_code
        raise error
    month.check(given, storage)
    return run, given
