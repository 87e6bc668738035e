"""A load driver that counts apart what became of each request: good, refused, lost, cut with an error, cut silently."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Tally:
    """What became of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """`good`, `cut` (with an error event), `silent` (cut without one), `wrong` (other text than the engine's), `lost`
    (no answer), or a status."""
    variants: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Of the good ones."""
    by_user: dict[str, set[str]] = field(default_factory=dict)

    @property
    def lost(self) -> dict[str, int]:
        """All that is neither good nor an explicit end of a stream."""
        return {name: count for name, count in self.outcomes.items() if name not in ("good", "cut")}


class Load:
    """Closed loop: `concurrency` clients, each asking again when it has its answer, until told to stop."""

    def __init__(self, urls: Sequence[str], key: str, model: str, words: str, streams: float = 0.7) -> None:
        self.urls, self._model, self._words, self._streams = urls, model, words, streams
        self._headers = {"authorization": f"Bearer {key}"}
        self._numbers = itertools.count()
        self.tally = Tally()
        self.asking: Counter[str] = Counter()
        """Requests in work, by address."""
        self._most: float = float("inf")
        self._stopped = False

    @property
    def done(self) -> int:
        return sum(self.tally.outcomes.values())

    def stop(self) -> None:
        self._stopped = True

    async def run(self, concurrency: int, requests: int | None = None) -> Tally:
        self._most = requests if requests is not None else float("inf")
        # Shorter than a draining gateway's announcement: who sends on an idle connection in the moment in which the
        # other side closes it loses the request, and HTTP/1.1 has no remedy but not to keep connections so long.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=0.5)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout) as session:
            await asyncio.gather(*(self._client(session) for _ in range(concurrency)))
        return self.tally

    async def until(self, requests: int) -> None:
        """Wait until so many have been answered."""
        while self.done < requests:
            await asyncio.sleep(0.01)

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stopped and (number := next(self._numbers)) < self._most:
            began = time.monotonic()
            outcome = await self._ask(session, number)
            self.tally.outcomes[outcome] += 1
            if outcome == "good":
                self.tally.seconds.append(time.monotonic() - began)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> str:
        stream = (number * 7919 % 1000) / 1000 < self._streams
        user = f"user-{number % 200}"
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": self._words}],
            "stream": stream,
            "user": user,
        }
        # A client of several gateways asks the next one when it cannot connect, as every load balancer does.
        urls = self.urls
        for attempt in range(len(urls)):
            url = urls[(number + attempt) % len(urls)]
            self.asking[url] += 1
            try:
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    data = await response.read()
            except aiohttp.ClientConnectorError:
                continue
            except (aiohttp.ClientError, TimeoutError):
                return "silent" if stream else "lost"
            finally:
                self.asking[url] -= 1
            if response.status == 200:
                variant = response.headers["x-haetsal-variant"]
                self.tally.variants[variant] += 1
                self.tally.by_user.setdefault(user, set()).add(variant)
            return self._judged(response.status, data, stream)
        return "lost"

    def _judged(self, status: int, data: bytes, stream: bool) -> str:
        if status != 200:
            return str(status)
        wanted = int(dict(word.partition("=")[::2] for word in self._words.split())["tokens"])
        if not stream:
            text = json.loads(data)["choices"][0]["message"]["content"]
        else:
            events = [event.removeprefix(b"data: ") for event in data.split(b"\n\n")[:-1]]
            if b'{"error"' in events[-1]:
                return "cut"
            if events[-1] != b"[DONE]":
                return "silent"
            chunks = [json.loads(event) for event in events[:-1]]
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        return "good" if text.startswith("".join(f"햇살{index} " for index in range(wanted))) else "wrong"
