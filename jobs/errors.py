"""One exception type per cause, each with the exit code a shell script can branch on.

A `HaetsalError` is addressed to a person: its message says what is wrong, where, and what to do. Entry points print
it as one line without a traceback (see `jobs.cli.main`); every other exception is a bug and keeps its traceback.
"""


class HaetsalError(Exception):
    """Base of all errors that a user can act on. `exit_code` is what the process returns."""

    exit_code = 1


class UsageError(HaetsalError):
    """Bad input: a setting, a command line or a data file. Exit code 2."""

    exit_code = 2


class EnvironmentNotReady(HaetsalError):
    """The machine or service lacks something: disk space, a port, a package, a model. Exit code 3."""

    exit_code = 3


class BudgetSpent(EnvironmentNotReady):
    """What a run or a month may cost is spent; nothing more is begun. Exit code 3."""


class RemoteError(HaetsalError):
    """A remote service failed after retries. Exit code 4."""

    exit_code = 4


class IntegrityError(HaetsalError):
    """Stored bytes are not what was written, or a result is not what it must be. Exit code 5."""

    exit_code = 5


class Diverged(IntegrityError):
    """Training produced a loss that is not a number or ran away; the run stopped with this reason. Exit code 5."""


class Interrupted(HaetsalError):
    """The user pressed Ctrl-C, or the process was told to stop; the run can be resumed. Exit code 130."""

    exit_code = 130
