"""What a replica knows while it runs: the config in force, its backends, whether it is leaving."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import aiohttp

from jobs.errors import UsageError
from jobs.serving.gateway.backends import Backend
from jobs.serving.gateway.config import Config, load
from jobs.serving.gateway.forward import Route
from jobs.serving.gateway.metrics import Metrics
from jobs.serving.gateway.variants import ranked
from jobs.serving.protocol import ApiError

_LOOK_S = 1.0
"""How often the files are looked at."""
_log = logging.getLogger(__name__)


class State:
    """Everything that outlives a request. Nothing in it is needed to answer the next request of a user elsewhere."""

    def __init__(self, path: Path, session: aiohttp.ClientSession) -> None:
        self._path, self._session = path, session
        self.metrics = Metrics()
        self.started_unix_s = int(time.time())
        self.draining = False
        self.backends: dict[str, Backend] = {}
        self._seen = _content(path)
        self._take(load(path))

    def _take(self, config: Config) -> None:
        """Put a config in force. Backends that did not change keep their connections, queues and state."""
        kept = {name: old for name, old in self.backends.items() if config.backends.get(name) == old.settings}
        self.config = config
        self.backends = {
            name: kept.get(name) or Backend(name, settings, self._session, self.metrics)
            for name, settings in config.backends.items()
        }

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
        """Read the config again if it changed. A bad one is refused aloud, and the old one stays in force."""
        content = _content(self._path)
        if content == self._seen:
            return
        self._seen = content
        try:
            self._take(load(self._path))
        except UsageError as error:
            self.metrics.reloads.labels("refused").inc()
            self.metrics.refused.set(1)
            _log.error("the new config is refused, the old one stays in force: %s", error)
        else:
            self.metrics.reloads.labels("taken").inc()
            self.metrics.refused.set(0)
            _log.info("the new config is in force")

    async def _follow_health(self) -> None:
        while True:
            retries = self.config.retries
            await asyncio.gather(*(backend.probe(retries) for backend in self.backends.values()))
            await asyncio.sleep(retries.probe_s)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
