"""Kill -9 at every step of a backup or a restore: every request that changes something, as a proxy saw them.

Shared by the tests, which take a sample, and by the benchmark, which takes all.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

from platform_under_test import Platform
from proxy import Kill, Proxy, Request

from ops.backup import catalog
from ops.backup.sealing import Sealing
from ops.restore.content import Content


@dataclass(frozen=True)
class Point:
    """One moment: at the nth change that goes through one proxy, before or after the server has done it."""

    through: Proxy
    change: int
    after: bool
    name: str


def points(*proxies: Proxy) -> list[Point]:
    """Every moment of the run that the proxies have just seen."""
    return [
        Point(proxy, number, after, f"{'after' if after else 'before'} {name}")
        for proxy in proxies
        for number, name in enumerate(proxy.changes)
        for after in (False, True)
    ]


def kill_at(platform: Platform, point: Point, command: str, *arguments: str) -> bool:
    """Run a command that is killed at `point`. False if it ended before it came there (it had less to do)."""
    pid: list[int] = []
    point.through.reset(lambda request: _fault(request, point, pid))
    process = platform.start(command, *arguments)
    pid.append(process.pid or 0)
    process.join(60)
    killed = process.exitcode == -signal.SIGKILL
    assert killed == bool(point.through.happened), (point.name, process.exitcode)
    assert not process.is_alive(), point.name
    point.through.reset()
    return killed


def _fault(request: Request, point: Point, pid: list[int]) -> Kill | None:
    return Kill(lambda: pid[0], point.after) if request.change == point.change else None


def broken_backups(platform: Platform) -> Iterator[str]:
    """Ids that the store lists and that cannot be restored in full."""
    objects = platform.objects
    for backup_id in catalog.backup_ids(objects):
        try:
            Content(objects, Sealing(), catalog.read(objects, backup_id, Sealing()), threads=4)
        except Exception as error:
            yield f"{backup_id}: {error}"
