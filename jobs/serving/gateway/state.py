"""What a replica knows while it runs: the config in force, its backends, whether it is leaving."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from jobs.errors import HaetsalError, UsageError
from jobs.serving.gateway.backends import Backend
from jobs.serving.gateway.config import load
from jobs.serving.gateway.feedback import FeedbackLog
from jobs.serving.gateway.forward import Route
from jobs.serving.gateway.keys import Key
from jobs.serving.gateway.keys import load as load_keys
from jobs.serving.gateway.limits import KeyLimits
from jobs.serving.gateway.metrics import Metrics
from jobs.serving.gateway.receipts import VARIABLE, Receipts, load_secret
from jobs.serving.gateway.shadow import Shadows
from jobs.serving.gateway.variants import ranked
from jobs.serving.protocol import ApiError
from jobs.spans import Spans

_LOOK_S = 1.0
"""How often the files are looked at."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks: the id of a key, and its limits."""

    id: str
    limits: KeyLimits


_ANYBODY = Caller("", KeyLimits(Key(requests_per_minute=None), 1))


class State:
    """Everything that outlives a request. Nothing in it is needed to answer the next request of a user elsewhere."""

    def __init__(self, path: Path, session: aiohttp.ClientSession) -> None:
        self._path, self._session = path, session
        self.metrics = Metrics()
        self.spans = Spans("haetsal-gateway")
        self.started_unix_s = int(time.time())
        self.shadows = Shadows(self.metrics)
        self.draining = False
        """It says that it is not ready, and closes connections after their answer."""
        self.stopping = False
        """What is still in work is being cancelled."""
        self._running: set[asyncio.Task[object]] = set()
        self._changed = asyncio.Event()
        self._own_secret = secrets.token_bytes(32)
        self.backends: dict[str, Backend] = {}
        self._limits: dict[str, KeyLimits] = {}
        self._files = [path]
        self._read()
        self._seen = {file: _content(file) for file in self._files}

    def _read(self) -> None:
        """Put the files in force. Raises HaetsalError, and then changes nothing.

        Backends that did not change keep their queues and what is known of them, keys what they have used.
        """
        config = load(self._path)
        # Also of a config that is refused further down: a keys file that was missing may come.
        self._files = [self._path, *(file for file in (config.keys_file, config.secret_file) if file)]
        keys = load_keys(config.keys_file) if config.keys_file else None
        secret = load_secret(config.secret_file)
        if secret is None and config.replicas > 1:
            where = f"set secret_file, or ${VARIABLE}"
            raise UsageError(
                f"{self._path}: replicas must share a secret, or they refuse each other's feedback; {where}"
            )
        feedback = FeedbackLog(config.feedback.address) if config.feedback else None
        self.keys, self.receipts, self.feedback = keys, Receipts(secret or self._own_secret), feedback
        kept = {name: old for name, old in self.backends.items() if config.backends.get(name) == old.settings}
        self.config = config
        self.backends = {
            name: kept.get(name) or Backend(name, settings, self._session, self.metrics)
            for name, settings in config.backends.items()
        }

    def caller(self, authorization: str | None) -> Caller:
        """Who asks. Raises ApiError 401."""
        if self.keys is None:
            return _ANYBODY
        scheme, _, given = (authorization or "").partition(" ")
        name = self.keys.owner(given.strip(), datetime.now(UTC)) if scheme.lower() == "bearer" else None
        if name is None:
            message = "A valid API key is needed: Authorization: Bearer <key>."
            raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")
        key, replicas = self.keys.keys[name], self.config.replicas
        limits = self._limits.get(name)
        if limits is None or limits.granted != (key.requests_per_minute, key.tokens_per_minute, replicas):
            limits = self._limits[name] = KeyLimits(key, replicas)
        return Caller(name, limits)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The current task is an answer in work, which `stop` may break off."""
        task = asyncio.current_task()
        assert task
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    def stop(self) -> None:
        """Break off what is still in work."""
        self.stopping = True
        for task in self._running:
            task.cancel()

    def routes(self, model: str, who: str, pinned: str | None) -> list[Route]:
        """Who may answer `who`, the favourite first; only `pinned` if that is given. Raises ApiError 404, 400."""
        entry = self.config.models.get(model)
        if entry is None:
            message = "The model does not exist; GET /v1/models lists those that do."
            raise ApiError(404, message, code="model_not_found", param="model")
        variants = ranked(entry.variants, who)
        if pinned is not None:
            variants = [variant for variant in variants if variant.name == pinned]
            if not variants:
                raise ApiError(400, "The model has no variant of this name.", code="unknown_variant")
        return [Route(variant.name, self.backends[variant.backend]) for variant in variants]

    def unready(self) -> str | None:
        """Why no traffic should come here; None: it may come."""
        if self.draining:
            return "draining"
        return None if any(backend.alive for backend in self.backends.values()) else "no backend answers"

    async def keep_current(self) -> None:
        """Follow the files and the backends' health, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_files())
            group.create_task(self._follow_health())

    async def _follow_files(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.reload()

    def reload(self) -> None:
        """Read the files again if one changed. Bad ones are refused aloud, and the old ones stay in force."""
        found = {path: _content(path) for path in self._files}
        if found == self._seen:
            return
        try:
            self._read()
        except HaetsalError as error:
            self.metrics.reloads.labels("refused").inc()
            self.metrics.refused.set(1)
            _log.error("the changed files are refused, the old ones stay in force: %s", error)
        else:
            self._changed.set()
            self.metrics.reloads.labels("taken").inc()
            self.metrics.refused.set(0)
            _log.info("the changed files are in force")
        # What was found before reading: a file that has changed since is read again the next time.
        self._seen = {path: found[path] if path in found else _content(path) for path in self._files}

    async def _follow_health(self) -> None:
        while True:
            retries = self.config.retries
            await asyncio.gather(*(backend.probe(retries) for backend in self.backends.values()))
            with suppress(TimeoutError):
                async with asyncio.timeout(retries.probe_s):
                    await self._changed.wait()  # new backends are asked at once, or /readyz would say no until then
            self._changed.clear()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
