"""`make backup`: save what the platform cannot rebuild. Exit code 4 if a source could not be read (PartiallyFailed)."""

from __future__ import annotations

from jobs.cli import main, parser
from jobs.errors import RemoteError
from ops.backup.catalog import State
from ops.backup.run import backup
from ops.cli import opened


def command() -> None:
    """Make one backup and print what it holds."""
    it = opened(parser(__doc__ or "").parse_args())
    result = backup(it.settings, it.cluster, it.objects, it.sealing)
    print(result.summary())
    if result.manifest.state is not State.COMPLETED:
        raise RemoteError(f"{result.manifest.id} is {result.manifest.state}: {'; '.join(result.manifest.problems)}")


if __name__ == "__main__":
    main(command)
