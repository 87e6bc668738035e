"""One completion on its way: which backend, how often, and what comes back.

Until the first byte has gone to the client a failure is answered by another try, on another address or another
variant. After it, a stream that breaks ends with an explicit error event and without `[DONE]`: never a silent cut.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from jobs.serving.gateway import config
from jobs.serving.gateway.backends import Address, Backend, TryFailed, whole
from jobs.serving.gateway.http import Call
from jobs.serving.gateway.metrics import Metrics
from jobs.serving.gateway.sse import Events, Usage, only_opening, usage_of
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, StreamOptions
from jobs.spans import Spans, headers

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_PASSED_ON = (400, 413, 422)
"""What a backend may say to a client: its request does not fit. Any other refusal is a fault on our side."""


_LAST_BYTES_S = 1.0
"""How long a backend has to end its answer after `[DONE]`; then its connection is closed."""
_STREAM_HEADERS = (("cache-control", "no-store"), ("x-accel-buffering", "no"))


class Cut(Exception):
    """A stream broke after its first byte. The text is the label of the metric."""


@dataclass(frozen=True)
class Route:
    """One variant that may answer."""

    variant: str
    backend: Backend


@dataclass
class Job:
    """One request to forward, and what became of it."""

    path: str
    request: ChatRequest | CompletionRequest
    request_id: str
    routes: list[Route]
    """In order of preference: the first is the request's own variant."""
    settings: config.Config
    metrics: Metrics
    sign: Callable[[str], str]
    """The request id that the client sees, given the variant that answers."""
    spans: Spans
    span: Span | None
    """Of the request: what each try's span is a child of."""
    variant: str = ""
    """Who answers."""
    usage: Usage | None = None
    """What the engine counted, of an answer that is not a stream."""
    events: Events | None = None
    """Of a stream: what has gone by so far."""
    began_s: float = field(default_factory=time.monotonic)
    first_token_s: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """For the backend. Nothing of the client's is passed on but the request id."""
        return {"content-type": "application/json", "x-request-id": self.request_id}

    def answered_by(self, variant: str, call: Call) -> None:
        """Tell the client who answers."""
        self.variant = variant
        call.extra_headers |= {"x-haetsal-variant": variant, "x-request-id": self.sign(variant)}

    def body_for(self, backend: Backend) -> bytes:
        """The request in the backend's words. A stream is always asked to count its tokens, for the limits."""
        changes: dict[str, object] = {"model": backend.settings.model}
        if self.request.stream:
            changes["stream_options"] = StreamOptions(include_usage=True)
        changed = self.request.model_copy(update=changes)
        return changed.model_dump_json(exclude_unset=True, exclude={"user"}).encode()

    def renamer(self, backend: Backend) -> Callable[[bytes], bytes]:
        """Puts the public name of the model into an answer. Inside JSON text the quotation marks would be escaped."""
        theirs, ours = json.dumps(backend.settings.model).encode(), json.dumps(self.request.model).encode()
        old, new, spaced = b'"model":' + theirs, b'"model":' + ours, b'"model": ' + theirs
        return lambda data: data.replace(old, new) if old in data else data.replace(spaced, new)


async def forward(job: Job, call: Call) -> None:
    """Ask until somebody answers, and pass the answer on. Raises ApiError, or Cut after the first byte."""
    last = TryFailed("none")
    # Routes that are known to be down come last: another variant's answer is better than a wait for a time-out.
    for rank, route in enumerate(sorted(job.routes, key=lambda route: route.backend.down)):
        async with route.backend.place(job.settings.timeouts.queue_s):
            addresses = route.backend.in_turn()
            left = job.settings.retries.attempts if rank == 0 else 1
            # A connection that was not made cost nobody anything, and says nothing about the request: each address may
            # refuse one more. What reached an engine counts, for it may have been the request that broke it.
            for index in range(left + len(addresses)):
                if not left:
                    break
                if index >= len(addresses):
                    await asyncio.sleep(job.settings.retries.backoff_s * 2 ** (index - len(addresses)))
                address = addresses[index % len(addresses)]
                try:
                    with job.spans.span("try", job.span, backend=route.backend.name) as span:
                        ask = _stream if job.request.stream else _unary
                        return await ask(job, route, address, call, job.headers | headers(span))
                except TryFailed as failure:
                    last = failure
                    call.extra_headers["x-haetsal-variant"] = route.variant
                    job.metrics.retries.labels(route.backend.name, failure.reason).inc()
                    left -= failure.reason != "connect"
                    if failure.reason in ("connect", "timeout"):
                        address.failed(job.settings.retries.eject_s)
        job.metrics.variant_failures.labels(job.request.model, route.variant).inc()
    raise _gave_up(last)


async def _unary(job: Job, route: Route, address: Address, call: Call, sent: dict[str, str]) -> None:
    wait, backend = job.settings.timeouts, route.backend
    try:
        async with (
            _first_byte(address, wait.answer_s),
            backend.ask(address, job.path, job.body_for(backend), sent, wait) as response,
        ):
            body = await whole(response)
    except TimeoutError:
        raise TryFailed("timeout") from None
    answer = _checked(response, body)
    address.answered()
    job.usage = usage_of(answer)
    job.answered_by(route.variant, call)
    await call.respond(200, job.renamer(backend)(body), "application/json")


async def _stream(job: Job, route: Route, address: Address, call: Call, sent: dict[str, str]) -> None:
    wait, backend = job.settings.timeouts, route.backend
    job.events = events = Events(keep_usage=job.request.includes_usage)
    opening = b""
    renamed = job.renamer(backend)
    idle: _Idle | None = None
    try:
        async with (
            _first_byte(address, wait.first_byte_s) as clock,
            backend.ask(address, job.path, job.body_for(backend), sent, wait) as response,
        ):
            if response.status != 200:
                _checked(response, await whole(response))
            while not (events.done or events.failed):
                piece = await response.content.readany()
                if not piece:
                    break
                passed = events.feed(piece)
                if not call.started:
                    opening += passed
                    if not opening or only_opening(opening):
                        continue
                    address.waiting.discard(clock)
                    await _begin(job, route, address, call)
                    passed, opening = opening, b""
                    idle = _Idle(clock, wait.idle_s)
                assert idle
                idle.pause()  # while the client is slow, the backend's clock stands still
                if passed:
                    await call.piece(renamed(passed))
                idle.start()
            if events.done and call.started:
                await call.end()
                clock.reschedule(asyncio.get_running_loop().time() + _LAST_BYTES_S)
                while await response.content.readany():
                    pass  # only a connection that was read to its end can be used again
    except TimeoutError:
        failure = "timeout"
    except ValueError:
        failure = "garbled"
    except TryFailed as error:
        if not call.started:
            raise
        failure = error.reason
    else:
        failure = "error_event" if events.failed else "reset"
    finally:
        if idle:
            idle.end()
    if call.ended:
        return
    if call.started:
        raise Cut(failure)
    raise TryFailed(failure)


class _Idle:
    """Lets a time limit expire when nothing came for a while. One timer, looked at now and then, instead of one that is
    set again for every piece."""

    def __init__(self, limit: asyncio.Timeout, idle_s: float) -> None:
        self._limit, self._idle_s = limit, idle_s
        self._loop = asyncio.get_running_loop()
        self._since_s: float | None = None
        limit.reschedule(None)
        self._timer = self._loop.call_later(idle_s, self._look)

    def start(self) -> None:
        """The wait begins."""
        self._since_s = self._loop.time()

    def pause(self) -> None:
        """Something came."""
        self._since_s = None

    def end(self) -> None:
        """No more is expected."""
        self._timer.cancel()

    def _look(self) -> None:
        now_s = self._loop.time()
        left_s = self._idle_s if self._since_s is None else self._since_s + self._idle_s - now_s
        if left_s <= 0:
            self._limit.reschedule(now_s)
        else:
            self._timer = self._loop.call_later(left_s, self._look)


@asynccontextmanager
async def _first_byte(address: Address, within_s: float) -> AsyncIterator[asyncio.Timeout]:
    """A time limit that also ends when the address turns out to be dead."""
    async with asyncio.timeout(within_s) as limit:
        address.waiting.add(limit)
        try:
            yield limit
        finally:
            address.waiting.discard(limit)


async def _begin(job: Job, route: Route, address: Address, call: Call) -> None:
    address.answered()
    job.first_token_s = time.monotonic() - job.began_s
    job.answered_by(route.variant, call)
    await call.start(200, "text/event-stream; charset=utf-8", _STREAM_HEADERS)


def _checked(response: aiohttp.ClientResponse, body: bytes) -> object:
    """The answer as JSON. Raises ApiError for what the client can mend, TryFailed for everything else."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if response.status == 200:
        if not isinstance(answer, dict):
            raise TryFailed("garbled")
        return answer
    if response.status in _PASSED_ON:
        raise _refusal(response.status, answer)
    if response.status == 429:
        after = response.headers.get("retry-after", "1")
        raise TryFailed("busy", retry_after_s=int(after) if after.isdigit() else 1)
    raise TryFailed(f"status_{response.status // 100}xx")


def _refusal(status: int, answer: object) -> ApiError:
    """A backend's 4xx in OpenAI's shape; of any other shape only the status is kept."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return ApiError(status, "The model refused this request.")
    texts = {key: str(error[key]) for key in ("message", "code", "param") if isinstance(error.get(key), str | int)}
    message = texts.pop("message", "The model refused this request.")
    return ApiError(status, message, code=texts.get("code"), param=texts.get("param"))


def _gave_up(last: TryFailed) -> ApiError:
    match last.reason:
        case "busy":
            message = "The model is busy; try again later."
            return ApiError(
                429, message, kind="rate_limit_error", code="overloaded", retry_after_s=last.retry_after_s or 1
            )
        case "timeout":
            return ApiError(504, "The model did not answer in time.", kind="server_error", code="timeout")
        case _:
            message = "The model cannot be reached; try again later."
            return ApiError(503, message, kind="server_error", code="unavailable", retry_after_s=1)
