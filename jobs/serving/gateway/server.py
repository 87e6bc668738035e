"""The gateway as a process: uvicorn, and how it leaves.

On SIGTERM it first says on /readyz that it is leaving, and goes on for `drain.announce_s`, so that a load balancer can
take it out; then it takes no more connections, gives answers in work `drain.finish_s`, and ends with code 0.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path
from types import FrameType

import aiohttp
import uvicorn

from jobs.serving.gateway.app import Gateway
from jobs.serving.gateway.connection import Connection
from jobs.serving.gateway.state import State

_KEEP_ALIVE_S = 75
_LAST_WORDS_S = 5
"""For the error events of streams that are broken off."""
_IDLE_S = 4.0
"""How long a connection to a backend is kept: uvicorn, which many engines run on, closes one after 5 s."""


class _Server(uvicorn.Server):
    """Leaves in two steps."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state, self._loop = state, asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            self._loop.call_soon_threadsafe(self._state.stop)
        elif not self._state.draining:
            self._state.draining = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self._state.config.drain.announce_s, self._finish)

    def _finish(self) -> None:
        self.should_exit = True
        self._loop.call_later(self._state.config.drain.finish_s, self._state.stop)


def _connections(state: State) -> type[Connection]:
    """The protocol that uvicorn makes an object of for every client."""
    known = {"timeouts": staticmethod(lambda: state.config.timeouts), "open_now": state.metrics.connections}
    return type("_Connection", (Connection,), known)


async def serve(path: Path, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises UsageError for a bad config."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    ) as session:
        state = State(path, session)
        config = uvicorn.Config(
            Gateway(state),
            host=host,
            port=port,
            http=_connections(state),
            ws="none",
            lifespan="off",
            access_log=False,
            proxy_headers=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(state.config.drain.finish_s) + _LAST_WORDS_S,
        )
        server = _Server(config, state)
        gc.collect()
        gc.freeze()  # what was imported is never garbage: looking through it again and again makes streams stutter
        current = asyncio.create_task(state.keep_current())
        # It never ends by itself: should it fail, a replica that follows no file any more must not go on unnoticed.
        current.add_done_callback(lambda _: setattr(server, "should_exit", True))
        try:
            await server.serve()
        finally:
            current.cancel()
            await asyncio.wait([current])
            if not current.cancelled():
                current.result()
