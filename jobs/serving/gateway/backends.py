"""The backends at run time: open connections, places in work and in the queue, addresses that are passed over."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from jobs.serving.gateway import config
from jobs.serving.gateway.metrics import Metrics
from jobs.serving.protocol import ApiError

_LONGEST_EJECTION_S = 30.0
_DEAD_AFTER_PROBES = 5
"""Not fewer: an engine that is busy with a long prompt, or a machine without time to spare, is silent for seconds."""
_LONGEST_ANSWER_BYTES = 64 * 1_048_576


class TryFailed(Exception):
    """One try at one address failed before the client got anything; another may succeed."""

    def __init__(self, reason: str, status: int | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.status, self.retry_after_s = reason, status, retry_after_s


@dataclass
class Address:
    """One address of a backend, and whether it is passed over for now."""

    url: URL
    failures: int = 0
    out_until_s: float = 0.0
    """On the monotonic clock."""
    silent_probes: int = 0
    """Questions for its health in a row that it did not answer."""
    waiting: set[asyncio.Timeout] = field(default_factory=set)
    """Time limits of the tries that wait for its first byte."""

    @property
    def out(self) -> bool:
        """Whether it is passed over."""
        return self.out_until_s > time.monotonic()

    def failed(self, eject_s: float) -> None:
        """It cannot be reached, or does not answer."""
        wait_s = min(eject_s * 2**self.failures, _LONGEST_EJECTION_S)
        self.failures = min(self.failures + 1, 16)
        self.out_until_s = time.monotonic() + wait_s

    def give_up(self) -> None:
        """End the waiting: the tries fail with a time-out, and go to another address."""
        now = asyncio.get_running_loop().time()
        for limit in self.waiting:
            if not limit.expired():
                limit.reschedule(now)

    def answered(self) -> None:
        """It is there."""
        self.failures, self.out_until_s = 0, 0.0


class Backend:
    """One entry of `backends` in the config."""

    def __init__(self, name: str, settings: config.Backend, session: aiohttp.ClientSession, metrics: Metrics) -> None:
        self.name, self.settings, self._session = name, settings, session
        self.addresses = [Address(URL(url)) for url in settings.urls]
        self.alive = False
        """Whether an address answered when it was last asked; for /readyz."""
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._next = 0
        self._mean_s = 1.0
        self._queue = 0
        self._ejected = metrics.ejected.labels(name)
        self._active, self._queued = metrics.active.labels(name), metrics.queued.labels(name)

    @property
    def down(self) -> bool:
        """Whether all its addresses are passed over."""
        return all(address.out for address in self.addresses)

    def in_turn(self) -> list[Address]:
        """Its addresses, each request starting with another; those passed over come last."""
        self._next = (self._next + 1) % len(self.addresses)
        turned = self.addresses[self._next :] + self.addresses[: self._next]
        return sorted(turned, key=lambda address: address.out)

    @asynccontextmanager
    async def place(self, queue_s: float) -> AsyncIterator[None]:
        """A place among the requests in work. Raises ApiError 429 if the queue is full or does not move."""
        if self._places.locked():
            await self._wait(queue_s)
        else:
            await self._places.acquire()
        self._active.inc()
        begun_s = time.monotonic()
        try:
            yield
        finally:
            self._mean_s += 0.1 * (time.monotonic() - begun_s - self._mean_s)
            self._active.dec()
            self._places.release()

    async def _wait(self, queue_s: float) -> None:
        if self._queue >= self.settings.max_queued:
            raise self._busy()
        self._queue += 1
        self._queued.inc()
        try:
            async with asyncio.timeout(queue_s):
                await self._places.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._queue -= 1
            self._queued.dec()

    def _busy(self) -> ApiError:
        rounds = (self._queue + 1) / self.settings.max_concurrent
        wait_s = min(max(math.ceil(rounds * self._mean_s), 1), 60)
        message = "The model is busy; try again later."
        return ApiError(429, message, kind="rate_limit_error", code="overloaded", retry_after_s=wait_s)

    @asynccontextmanager
    async def ask(
        self, address: Address, path: str, body: bytes, headers: dict[str, str], wait: config.Timeouts
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A POST. The answer may have any status. Raises TryFailed if the backend cannot be reached."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=wait.connect_s)
        with self._failures():
            request = self._session.post(
                address.url.with_path(path), data=body, headers=headers, timeout=timeout, allow_redirects=False
            )
            async with request as response:
                yield response

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientConnectorDNSError):
            raise TryFailed("connect") from None
        except aiohttp.ClientError:
            raise TryFailed("reset") from None

    async def probe(self, retries: config.Retries) -> None:
        """Ask each address for its health; who does not answer in time is passed over, who does is back."""
        alive = await asyncio.gather(*(self._answers(address, retries.probe_s) for address in self.addresses))
        for address, answered in zip(self.addresses, alive, strict=True):
            address.silent_probes = 0 if answered else address.silent_probes + 1
            if answered:
                address.answered()
                continue
            address.failed(retries.eject_s)
            if address.silent_probes >= _DEAD_AFTER_PROBES and any(alive):
                address.give_up()
        self.alive = any(alive)
        self._ejected.set(sum(address.out for address in self.addresses))

    async def _answers(self, address: Address, within_s: float) -> bool:
        timeout = aiohttp.ClientTimeout(total=within_s)
        url = address.url.with_path(self.settings.health_path)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(url, timeout=timeout, allow_redirects=False):
                return True
        return False


async def whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises TryFailed for one beyond all measure."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > _LONGEST_ANSWER_BYTES:
            raise TryFailed("oversized")
        pieces.append(piece)
    return b"".join(pieces)
