"""Shadow traffic: copies of some requests to a backend on trial. Its answers are measured and thrown away."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping

from jobs.serving.gateway import config
from jobs.serving.gateway.backends import Backend, TryFailed
from jobs.serving.gateway.forward import Job
from jobs.serving.gateway.metrics import Metrics
from jobs.serving.gateway.sse import Events


class Shadows:
    """The copies in work. None of them can delay or change the answer that a client gets."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, job: Job, shadow: config.Shadow | None, backends: Mapping[str, Backend]) -> None:
        """Send a copy, if it is this request's turn and there is room."""
        if shadow is None or not _chosen(job.request_id, shadow.fraction):
            return
        if len(self._tasks) >= shadow.max_concurrent:
            self._metrics.shadow.labels(job.request.model, "skipped").inc()
            return
        task = asyncio.create_task(self._ask(job, backends[shadow.backend]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, job: Job, backend: Backend) -> None:
        began_s = time.monotonic()
        model, outcome = job.request.model, "failed"
        try:
            async with asyncio.timeout(job.settings.timeouts.whole_s):
                outcome = "ok" if await self._answers(job, backend) else "failed"
        except (TryFailed, TimeoutError, ValueError):
            pass  # counted below
        self._metrics.shadow.labels(model, outcome).inc()
        if outcome == "ok":
            self._metrics.shadow_duration.labels(model).observe(time.monotonic() - began_s)

    async def _answers(self, job: Job, backend: Backend) -> bool:
        events = Events(keep_usage=True)
        address = backend.in_turn()[0]
        async with backend.ask(
            address, job.path, job.body_for(backend), job.headers, job.settings.timeouts
        ) as response:
            async for piece in response.content.iter_any():
                if job.request.stream:
                    events.feed(piece)
        return response.status == 200 and (events.done or not job.request.stream)


def _chosen(request_id: str, fraction: float) -> bool:
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64
