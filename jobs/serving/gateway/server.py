"""The gateway as a process: uvicorn with deadlines that it lacks, and a drain in two steps."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from types import FrameType

import aiohttp
import uvicorn

from jobs.serving.gateway.app import Gateway
from jobs.serving.gateway.state import State

_KEEP_ALIVE_S = 75


async def serve(path: Path, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises UsageError for a bad config."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15, enable_cleanup_closed=True)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, skip_auto_headers=["user-agent", "accept-encoding"]
    ) as session:
        state = State(path, session)
        server = uvicorn.Server(
            uvicorn.Config(
                Gateway(state),
                host=host,
                port=port,
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(state.config.drain.finish_s),
            )
        )
        current = asyncio.create_task(state.keep_current())
        try:
            await server.serve()
        finally:
            current.cancel()
