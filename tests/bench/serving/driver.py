"""Load on an OpenAI-compatible address: many requests at a time, and an account of how each one ended.

Nothing is taken on trust: of every answer the status, of every stream the end and each token are checked.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.bench.serving.engine import counted, order

Post = aiohttp.client._RequestContextManager
_CONTENT = re.compile(rb'"content": ?"((?:[^"\\]|\\.)*)"')
_ERROR = b'data: {"error"'
_DONE = b"data: [DONE]"


@dataclass(frozen=True)
class Kind:
    """What is asked: `tokens` at `pace_ms` each, streamed or as a whole."""

    stream: bool
    tokens: int
    pace_ms: int

    def body(self, model: str) -> bytes:
        """The request."""
        messages = [{"role": "user", "content": order(self.tokens, self.pace_ms)}]
        return json.dumps({"model": model, "messages": messages, "stream": self.stream}).encode()


STREAM = Kind(True, 64, 5)
NOTHING = Kind(False, 1, 0)
"""The least that can be asked."""
UNARY = Kind(False, 20, 5)
"""Long enough in work to be hit by a fault."""


@dataclass
class Tally:
    """How requests ended, by kind, and their times in seconds."""

    ends: Counter[str] = field(default_factory=Counter)
    unary_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    stream_s: list[float] = field(default_factory=list)
    took_s: float = 0.0
    resent: int = 0
    """Requests that the driver sent again, as OpenAI's clients do."""
    without_retry_after: int = 0

    @property
    def total(self) -> int:
        return self.ends.total()

    def of(self, *ends: str) -> int:
        """How many ended so."""
        return sum(self.ends[end] for end in ends)

    def line(self) -> str:
        """The account in words."""
        return ", ".join(f"{self.ends[end]:,} {end}" for end in ENDS if self.ends[end])


ENDS = (
    "ok",
    "refused",  # 429
    "unary lost",  # any other status, or no answer
    "stream lost",  # the same, before its first token
    "cut with error",  # an error event, after some tokens
    "cut by connection",  # the connection broke: the client's library raises
    "silently cut",  # it ended as if it were whole, and was not
    "wrong",  # whole, with other bytes than were said
)


class Load:
    """`workers` clients that each ask one thing after the other; each request goes to the next of `urls`."""

    def __init__(
        self,
        urls: Sequence[str],
        model: str = "chat",
        *,
        kinds: Sequence[tuple[Kind, float]] = ((STREAM, 0.7), (UNARY, 0.3)),
        workers: int = 16,
        resend: int = 0,
        refused_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        """`resend`: how often what was lost is sent again. `refused_s`: how long a client waits after a 429."""
        self._addresses = [f"{url}/v1/chat/completions" for url in urls]
        self._bodies = {kind: kind.body(model) for kind, _ in kinds}
        self._kinds, self._weights = [kind for kind, _ in kinds], [weight for _, weight in kinds]
        self._workers, self._resend, self._refused_s = workers, resend, refused_s
        self._random = random.Random(seed)
        self._sent = 0
        self.tally = Tally()

    async def run(self, requests: int | None = None, until: asyncio.Event | None = None) -> Tally:
        """Send `requests`, or until the event is set."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as self._session:
            begun_s = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work(requests, until))
            self.tally.took_s = time.perf_counter() - begun_s
        return self.tally

    async def _work(self, requests: int | None, until: asyncio.Event | None) -> None:
        while (requests is None or self._sent < requests) and not (until and until.is_set()):
            self._sent += 1
            kind = self._random.choices(self._kinds, self._weights)[0]
            turn = self._sent
            end = await self._ask(kind, turn)
            for again in range(1, self._resend + 1):
                if end not in ("unary lost", "stream lost"):
                    break
                self.tally.resent += 1
                end = await self._ask(kind, turn + again)
            self.tally.ends[end] += 1
            if end == "refused":
                await asyncio.sleep(self._refused_s)

    async def _ask(self, kind: Kind, turn: int) -> str:
        address = self._addresses[turn % len(self._addresses)]
        post = self._session.post(address, data=self._bodies[kind], headers={"content-type": "application/json"})
        return await (self._stream if kind.stream else self._unary)(kind, post)

    async def _unary(self, kind: Kind, post: Post) -> str:
        begun_s = time.perf_counter()
        try:
            async with post as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return "unary lost"
        if response.status != 200:
            return self._refused(response, "unary lost")
        self.tally.unary_s.append(time.perf_counter() - begun_s)
        return "ok" if _said(body) == counted(kind.tokens) else "wrong"

    async def _stream(self, kind: Kind, post: Post) -> str:
        begun_s = time.perf_counter()
        pieces: list[bytes] = []
        broken = False
        try:
            async with post as response:
                if response.status != 200:
                    return self._refused(response, "stream lost")
                async for piece in response.content.iter_any():
                    if not pieces:
                        first_s = time.perf_counter() - begun_s
                    pieces.append(piece)
        except (aiohttp.ClientError, TimeoutError):
            broken = True
        if not pieces:
            return "stream lost"
        body = b"".join(pieces)
        if _ERROR in body:
            return "cut with error"
        if broken:
            return "cut by connection"
        if not body.rstrip().endswith(_DONE):
            return "silently cut"
        self.tally.first_token_s.append(first_s)
        self.tally.stream_s.append(time.perf_counter() - begun_s)
        return "ok" if _said(body) == counted(kind.tokens) else "wrong"

    def _refused(self, response: aiohttp.ClientResponse, otherwise: str) -> str:
        if response.status != 429:
            return otherwise
        self.tally.without_retry_after += "retry-after" not in response.headers
        return "refused"


def _said(body: bytes) -> str:
    pieces = [json.loads(b'"' + piece + b'"') if b"\\" in piece else piece.decode() for piece in _CONTENT.findall(body)]
    return "".join(pieces)


def p50_ms(seconds: Sequence[float]) -> float:
    """Median in milliseconds."""
    return statistics.median(seconds) * 1000


def p99_ms(seconds: Sequence[float]) -> float:
    """99th percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000
