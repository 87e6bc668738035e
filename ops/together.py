"""Several slow things at once, all of them given up after one deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from jobs.errors import HaetsalError, RemoteError

T = TypeVar("T")


def run_together(tasks: Mapping[str, Callable[[], T]], deadline_s: float) -> dict[str, T | HaetsalError]:
    """The result of each task, or the HaetsalError that it raised; RemoteError for one that took longer.

    A task that hangs keeps its thread and nothing else: the process can end without it. Any other exception is a bug
    of the task and is raised here.
    """
    results: dict[str, T | HaetsalError] = {}
    bugs: list[BaseException] = []

    def work(name: str, task: Callable[[], T]) -> None:
        try:
            results[name] = task()
        except HaetsalError as error:
            results[name] = error
        except BaseException as error:
            bugs.append(error)

    threads = {
        name: threading.Thread(target=work, args=(name, task), name=name, daemon=True) for name, task in tasks.items()
    }
    ends_s = time.monotonic() + deadline_s
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, ends_s - time.monotonic()))
    if bugs:
        raise bugs[0]
    late = RemoteError(f"no answer within {deadline_s:g} s")
    return {name: results.get(name, late) for name in tasks}
