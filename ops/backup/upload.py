"""Content on its way into the store: sealed, named by its sha256, sent once, several at a time, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from types import TracebackType

from ops.backup.catalog import blob_name
from ops.backup.objects import Objects
from ops.backup.sealing import Sealing


class Upload:
    """A context: leaving it without an error waits until everything is stored and raises what went wrong.

    What the store has had for less than `reuse_days` is not sent again. Retention deletes unlisted blobs only when they
    are older than that by a margin, so the two never disagree, whatever their timing.
    """

    def __init__(self, objects: Objects, sealing: Sealing, threads: int, reuse_days: float) -> None:
        self._objects, self._sealing, self._most = objects, sealing, 2 * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._pending: set[Future[None]] = set()
        cutoff = objects.now() - timedelta(days=reuse_days)
        self._present = {
            bytes.fromhex(stored.name.rpartition("/")[2])
            for stored in objects.list("objects/")
            if stored.stored_at > cutoff
        }
        self.blobs: dict[str, int] = {}
        """Everything that was added: sha256 to stored size in bytes."""
        self.sent_bytes = 0
        self.sent = 0

    def add(self, content: bytes) -> str:
        """Store `content` unless it is there; returns the sha256 of its stored form."""
        data = self._sealing.seal(content)
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = len(data)
        key = bytes.fromhex(sha256)
        if key not in self._present:
            self._present.add(key)
            self._reap(self._most - 1)
            self._pending.add(self._pool.submit(self._objects.put, blob_name(sha256), data))
            self.sent_bytes += len(data)
            self.sent += 1
        return sha256

    def add_all(self, contents: Iterable[bytes]) -> tuple[str, ...]:
        """`add` each, in order."""
        return tuple(self.add(content) for content in contents)

    def flush(self) -> None:
        """Wait until all that was added is stored."""
        self._reap(0)

    def _reap(self, most: int) -> None:
        """Wait until at most `most` uploads are pending; raises the first error."""
        while len(self._pending) > most:
            done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._pool.shutdown(cancel_futures=True)
