"""One holder at a time, by a Kubernetes Lease.

A holder is dead when its Lease has not changed while we watched for as long as the Lease says (client-go's rule). No
clock of another machine is read, so a wrong clock neither steals a Lease nor keeps one.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from jobs.errors import HaetsalError
from ops.kube import Changed, Cluster, Exists, Missing, Object

_GROUP, _KIND = "coordination.k8s.io", "Lease"
_LOOKS = 10
"""Times that a held Lease is looked at before its holder counts as dead."""


class Busy(HaetsalError):
    """Another process holds the Lease. Exit code 3: try later."""

    exit_code = 3


class Lost(HaetsalError):
    """The Lease could not be renewed in time; somebody else may hold it. Exit code 4."""

    exit_code = 4


class Lease:
    """A held Lease. `check` must pass before every step that only the holder may take."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, lease_s: float) -> None:
        self._cluster, self._namespace, self._name, self._lease_s = cluster, namespace, name, lease_s
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._held: Object = {}
        self._renewed_s = 0.0
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Take the Lease if it is free or its holder is dead, which takes `lease_s` to find out. Raises Busy."""
        found = self._find()
        if found and found["spec"].get("holderIdentity"):
            found = self._watch_die(found)
        begun_s = time.monotonic()
        try:
            body = self._body(found["metadata"]["resourceVersion"] if found else None)
            self._held = (self._cluster.replace if found else self._cluster.create)(_GROUP, body)
        except (Exists, Changed):
            now = self._find() or {"spec": {}}
            if now["spec"].get("holderIdentity") != self._holder:  # else ours: only the answer was lost
                raise self._busy(now) from None
            self._held = now
        self._renewed_s = begun_s

    def _watch_die(self, held: Object) -> Object | None:
        """The Lease once it is given back or its holder is dead. Raises Busy as soon as it is renewed.

        It is asked for again and again, as client-go does: to watch it would take the right to list.
        """
        deadline_s = time.monotonic() + self._lease_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._stop.wait(min(left_s, self._lease_s / _LOOKS))
            now = self._find()
            if not now or not now["spec"].get("holderIdentity"):
                return now
            if now["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
                raise self._busy(now)
        return held

    def check(self) -> None:
        """Raise Lost unless the Lease is surely still ours."""
        if time.monotonic() - self._renewed_s > self._lease_s:
            raise Lost(f"Lease {self._name}: not renewed for {self._lease_s:g} s; another process may have taken over")

    def renew_forever(self) -> None:
        """Renew three times per `lease_s` until `stop`; what goes wrong shows in `check`."""
        while not self._stop.wait(self._lease_s / 3):
            begun_s = time.monotonic()
            try:
                self._held = self._cluster.replace(_GROUP, self._body(self._held["metadata"]["resourceVersion"]))
            except Changed:
                now = self._find()
                if not now or now["spec"].get("holderIdentity") != self._holder:
                    return
                self._held = now
            except HaetsalError:
                continue
            self._renewed_s = begun_s

    def stop(self) -> None:
        """Let `renew_forever` return."""
        self._stop.set()

    def release(self) -> None:
        """Give the Lease back, if it is still ours; not while `renew_forever` runs."""
        try:
            body = self._body(self._held["metadata"]["resourceVersion"])
            body["spec"]["holderIdentity"] = ""
            self._cluster.replace(_GROUP, body)
        except HaetsalError:
            return  # it runs out by itself

    def _find(self) -> Object | None:
        try:
            return self._cluster.get(_GROUP, _KIND, self._name, self._namespace)
        except Missing:
            return None

    def _body(self, version: str | None) -> Object:
        metadata = {"name": self._name, "namespace": self._namespace}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": _KIND,
            "metadata": metadata | ({"resourceVersion": version} if version else {}),
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": max(1, round(self._lease_s)),
                "renewTime": now,
            },
        }

    def _busy(self, lease: Object) -> Busy:
        holder = lease["spec"].get("holderIdentity") or "another process"
        return Busy(f"Lease {self._name} in {self._namespace}: held by {holder}; wait until it has finished")


@contextmanager
def held(cluster: Cluster, namespace: str, name: str, lease_s: float) -> Iterator[Lease]:
    """Hold a Lease while the block runs. Raises Busy if somebody else does."""
    lease = Lease(cluster, namespace, name, lease_s)
    lease.acquire()
    thread = threading.Thread(target=lease.renew_forever, name=f"lease-{name}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.stop()
        thread.join()
        lease.release()
