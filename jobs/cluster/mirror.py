"""A copy of what the API server has about a run, kept up to date by watches that survive what watches go through."""

from __future__ import annotations

import queue
import threading
import time
from types import TracebackType
from typing import Any, Self

from jobs.cluster.diagnosis import Object
from jobs.cluster.kube import KINDS, Cluster, Gone
from jobs.errors import HaetsalError, RemoteError

_WATCH_S = 240
"""Watches are renewed after this time, before proxies on the way cut silent connections."""
_RETRY_S = 2.0
_GIVE_UP_S = 120.0


class Mirror:
    """Lists and watches the kinds of `Cluster.about` while the context lasts, each in a thread of its own.

    A connection that breaks is made again, from where it was; if the server has forgotten that (410), everything is
    listed again. `changed` gets an item at each change.
    """

    def __init__(self, cluster: Cluster, run_id: str, changed: queue.SimpleQueue[Any]) -> None:
        self._cluster, self._run_id, self._changed = cluster, run_id, changed
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._failures: dict[str, tuple[float, HaetsalError]] = {}
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        for kind in KINDS:
            self._objects[kind], version = self._listed(kind)
            thread = threading.Thread(target=self._keep, args=(kind, version), name=f"watch-{kind}", daemon=True)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()  # a thread may wait for its watch to end; it is a daemon and touches nothing more

    def objects(self) -> dict[str, list[Object]]:
        """What there is now, by kind. Raises the error of a watch that cannot go on."""
        with self._lock:
            for since, error in self._failures.values():
                if not isinstance(error, RemoteError) or time.monotonic() - since > _GIVE_UP_S:
                    raise error
            return {kind: list(found.values()) for kind, found in self._objects.items()}

    @property
    def trouble(self) -> str | None:
        """Why the copy may be old at the moment."""
        with self._lock:
            return next((str(error) for _, error in self._failures.values()), None)

    def _listed(self, kind: str) -> tuple[dict[str, Object], str]:
        found, version = self._cluster.listing(kind, self._run_id)
        return {item["metadata"]["uid"]: item for item in found}, version

    def _keep(self, kind: str, version: str | None) -> None:
        while not self._stopping.is_set():
            try:
                if version is None:
                    found, version = self._listed(kind)
                    with self._lock:
                        self._objects[kind] = found
                    self._changed.put(None)
                for change, item in self._cluster.watch(kind, self._run_id, version, _WATCH_S):
                    if self._stopping.is_set():
                        return
                    version = item["metadata"]["resourceVersion"]
                    with self._lock:
                        self._apply(kind, change, item)
                    self._changed.put(None)
                self._recovered(kind)
            except Gone:
                version = None
            except HaetsalError as error:
                with self._lock:
                    since = self._failures.get(kind, (time.monotonic(), error))[0]
                    self._failures[kind] = (since, error)
                self._changed.put(None)
                if not isinstance(error, RemoteError):
                    return
                version = None  # what happened meanwhile may be more than the server remembers
                self._stopping.wait(_RETRY_S)

    def _apply(self, kind: str, change: str, item: Object) -> None:
        if change == "DELETED":
            self._objects[kind].pop(item["metadata"]["uid"], None)
        else:
            self._objects[kind][item["metadata"]["uid"]] = item
        self._failures.pop(kind, None)

    def _recovered(self, kind: str) -> None:
        with self._lock:
            self._failures.pop(kind, None)
