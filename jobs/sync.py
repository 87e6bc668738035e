"""`make sync`: send to MLflow what could not be sent while runs went on.

    python -m jobs.sync --set "tracking.uri=http://mlflow:5000"

Sending twice does no harm: what MLflow has already is not sent again.
"""

from __future__ import annotations

from jobs import cli, settings
from jobs.storage import Storage
from jobs.tracking import sync


def main() -> None:
    """Command line entry; see the module's docstring."""
    arguments = cli.parser(__doc__ or "").parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    done = sync(Storage(tree.storage.root), tree.tracking)
    for run_id, count in done.sent.items():
        print(f"{run_id}: {count} events sent")
    for run_id in done.busy:
        print(f"{run_id}: left alone, it is being worked on")
    if not done.sent and not done.busy:
        print("nothing to send")


if __name__ == "__main__":
    cli.main(main)
