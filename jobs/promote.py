"""`make promote | rollback | registry`: who serves, and who is to serve.

    python -m jobs.promote registry                                  # versions, lineage, aliases, promotion log
    python -m jobs.promote promote --version 4 --reason "A/B of May" # or --version challenger
    python -m jobs.promote rollback --reason "complaints"            # the champion before this one

The pipeline promotes by the same code (jobs/registry/promotion.py): of two at once one wins, the other ends with exit
code 5 and says who was first.
"""

from __future__ import annotations

import argparse
import getpass
import socket
from datetime import datetime

from jobs import cli, settings
from jobs.errors import UsageError
from jobs.registry.history import Entry, History
from jobs.registry.promotion import Office
from jobs.registry.versions import Registry
from jobs.storage import Storage


def registry(office: Office, _: argparse.Namespace) -> None:
    """Show versions, aliases and the log. A hand-moved alias is said after them, with exit code 5."""
    by_version: dict[str, list[str]] = {}
    for alias, number in office.registry.aliases().items():
        by_version.setdefault(number, []).append(alias)
    versions = office.registry.versions()
    for version in versions:
        print(f"version {version.number}  {', '.join(by_version.get(version.number, []))}".rstrip())
        for name, value in vars(version.lineage).items():
            print(f"  {name:<18} {value}")
    if not versions:
        print(f"registered model {office.registry.name} has no version yet; make pipeline makes one")
    for entry in office.history.entries():
        print(_line(entry))
    office.serving()


def promote(office: Office, options: argparse.Namespace) -> None:
    """Make a version the champion."""
    if not options.version:
        raise UsageError("which version? make promote VERSION=<number or challenger>; `make registry` lists them")
    number = office.registry.version(options.version).number
    _say(office, office.promote(number, _who(), options.reason))


def rollback(office: Office, options: argparse.Namespace) -> None:
    """Bring back the champion before this one."""
    _say(office, office.roll_back(_who(), options.reason))


def _say(office: Office, entry: Entry) -> None:
    print(f"{office.registry.name}: champion is version {entry.to} (it was {entry.before or 'none'})")


def _line(entry: Entry) -> str:
    when = datetime.fromtimestamp(entry.time_unix_s).astimezone()
    change = f"{entry.before or '-'} -> {entry.to or '-'}"
    return f"{entry.number:>3}  {when:%Y-%m-%d %H:%M}  {entry.kind:<8}  {change:<9}  {entry.by}: {entry.reason}"


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user without a name
        return socket.gethostname()


_VERBS = {"registry": registry, "promote": promote, "rollback": rollback}


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("verb", choices=_VERBS)
    options.add_argument("--version", metavar="VERSION", help="promote: number, or `challenger`")
    options.add_argument("--reason", default="by hand", help="for the log")
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    storage = Storage(tree.storage.root)
    office = Office(Registry(tree.registry, tree.tracking, storage), History(storage, tree.registry.model))
    _VERBS[arguments.verb](office, arguments)


if __name__ == "__main__":
    cli.main(main)
