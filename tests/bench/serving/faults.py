"""What is lost when things break: each fault is made by force, proved to have happened, and the requests counted.

A killed process is proved dead and replaced by another one; a fault that did not happen fails its scenario.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.bench.serving import servers
from tests.bench.serving.driver import STREAM, UNARY, Kind, Load, Tally, p99_ms

EVERY_S = 10.0
_BACK_S = 90.0
_POLL_S = 0.05
_SHORT = [(STREAM, 0.7), (UNARY, 0.3)]


@dataclass
class Outcome:
    """One scenario: its account, what was broken, and whether it holds."""

    name: str
    tally: Tally
    happened: list[str] = field(default_factory=list)
    retried: int = 0
    """Tries that the gateway made again, unseen by its clients."""
    holds: bool = True

    def line(self) -> str:
        """A row of the table."""
        resent = f", {self.tally.resent:,} resent by the client" if self.tally.resent else ""
        verdict = "holds" if self.holds else "BROKEN"
        return (
            f"| {self.name} | {'; '.join(self.happened)} | {self.tally.line()}{resent} | {self.retried:,} | {verdict} |"
        )


Outcomes = AsyncIterator[Outcome]
HEADER = "| fault | what happened | requests | retried by the gateway | |\n|---|---|---|---|---|"


async def _gone(pid: int) -> None:
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(_POLL_S)


async def kill(cluster: servers.Server, title: str) -> float:
    """Kill -9 the oldest process of that title; returns the seconds until another one has taken its place."""
    before = await asyncio.to_thread(cluster.pids, title)
    assert before, f"no process {title} to kill"
    begun_s = time.monotonic()
    os.kill(before[0], signal.SIGKILL)
    async with asyncio.timeout(_BACK_S):
        await _gone(before[0])
        while not set(await asyncio.to_thread(cluster.pids, title)) - set(before):
            await asyncio.sleep(0.5)
    return time.monotonic() - begun_s


def retries(*gateways: servers.Server) -> int:
    """What these gateways have tried again so far."""
    total = 0.0
    for gateway in gateways:
        with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=10) as answer:
            found = re.findall(r"^haetsal_gateway_retries_total\{.*\} (\S+)$", answer.read().decode(), re.M)
        total += sum(map(float, found))
    return int(total)


async def under_load(load: Load, fault: Callable[[], Awaitable[str]], *, lead_s: float = 2.0) -> tuple[Tally, str]:
    """Send requests, do the fault in the midst of them, go on for as long again after it."""
    until = asyncio.Event()
    running = asyncio.create_task(load.run(until=until))
    await asyncio.sleep(lead_s)
    assert load.tally.ends["ok"], f"nothing was answered before the fault: {load.tally.line()}"
    happened = await fault()
    before = load.tally.ends["ok"]
    await asyncio.sleep(lead_s)
    until.set()
    tally = await running
    assert tally.ends["ok"] > before, "nothing was answered after the fault"
    return tally, happened


def _kept(tally: Tally) -> bool:
    return tally.of("unary lost", "silently cut", "wrong") == 0


async def replicas(requests: int, every_s: float = EVERY_S, count: int = 3, workers: int = 16) -> Outcomes:
    """A replica is killed every `every_s` while `requests` go through."""
    with servers.cluster(haproxy=True, replicas=count) as cluster, _gateway([cluster.url]) as gateway:
        load = Load([gateway.url], kinds=_SHORT, workers=workers)
        running = asyncio.create_task(load.run(requests))
        killed = 0
        while not running.done():
            await asyncio.wait({running}, timeout=every_s)
            if not running.done():
                await kill(cluster, "ray::ServeReplica")
                killed += 1
        tally = await running
        happened = [f"{killed} kills among {count} replicas, each replaced"]
        yield Outcome("replica killed", tally, happened, retries(gateway), killed > 0 and _kept(tally))


async def processes() -> Outcomes:
    """Serve's controller, its proxy actor and the haproxy process, in turn; two clusters, so that one is there."""
    with (
        servers.cluster(haproxy=True) as first,
        servers.cluster(haproxy=True) as second,
        _gateway([first.url, second.url]) as gateway,
    ):
        before = retries(gateway)
        for name, title in (
            ("Serve's controller killed", "ray::ServeController"),
            ("Serve's proxy actor killed", "ray::ProxyActor"),
            ("haproxy process killed, one of two nodes", "haproxy"),
        ):

            async def fault(title: str = title) -> str:
                return f"{title} killed, another in its place after {await kill(first, title):.1f} s"

            tally, happened = await under_load(Load([gateway.url], kinds=_SHORT, workers=8), fault)
            now = retries(gateway)
            yield Outcome(name, tally, [happened], now - before, _kept(tally))
            before = now


async def changes() -> Outcomes:
    """A rolling update of the Serve application."""
    with servers.cluster(haproxy=True, replicas=2) as cluster, _gateway([cluster.url]) as gateway:
        pids = set(cluster.pids("ray::ServeReplica"))

        async def fault() -> str:
            begun_s = time.monotonic()
            await asyncio.to_thread(cluster.command, "update")
            return f"done after {time.monotonic() - begun_s:.1f} s"

        tally, happened = await under_load(Load([gateway.url], kinds=_SHORT, workers=8), fault)
        now = set(cluster.pids("ray::ServeReplica"))
        assert now - pids, f"nothing was replaced: {pids}"
        yield Outcome("rolling update", tally, [happened], retries(gateway), _kept(tally))


async def gateways() -> Outcomes:
    """One gateway of two is killed. Its clients send again what was lost, as OpenAI's client does (twice at most)."""
    with servers.bare() as engine, _gateway([engine.url]) as one, _gateway([engine.url]) as other:

        async def fault() -> str:
            one.process.kill()
            await asyncio.to_thread(one.process.wait)
            return f"gateway killed (exit code {one.process.returncode})"

        load = Load([one.url, other.url], kinds=_SHORT, workers=8, resend=2)
        tally, happened = await under_load(load, fault)
        yield Outcome("one gateway of two killed", tally, [happened], retries(other), _kept(tally))


async def overload(capacity: int = 8, seconds: float = 8.0) -> Outcomes:
    """Five times as many clients as the backend has places."""
    kinds = [(Kind(False, 20, 5), 1.0)]
    with servers.bare() as engine:
        limits = {"max_concurrent": capacity, "max_queued": capacity // 2}
        with servers.gateway(servers.routes([engine.url], **limits)) as gateway:
            calm = await _timed(Load([gateway.url], kinds=kinds, workers=capacity), seconds / 2)
            rss = gateway.rss_bytes()
            # Who is refused comes back after the time of one request: five times as many as can be served, and no more.
            tally = await _timed(Load([gateway.url], kinds=kinds, workers=5 * capacity, refused_s=0.1), seconds)
            grown = gateway.rss_bytes() / rss
    slower = p99_ms(tally.unary_s) / p99_ms(calm.unary_s)
    happened = [
        f"{5 * capacity} clients on {capacity} places",
        f"p99 of the admitted {slower:.2f} × ({p99_ms(tally.unary_s):.0f} ms)",
        f"memory {grown:.2f} ×",
    ]
    holds = _kept(tally) and tally.ends["refused"] > 0 and not tally.without_retry_after and slower <= 2 and grown < 1.2
    yield Outcome("5 × overload", tally, happened, 0, holds)


async def silence(first_byte_s: float = 1.0) -> Outcomes:
    """One of two addresses takes connections and never answers."""
    taken = 0
    ended = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += b"POST" in await reader.read(65_536)
        await ended.wait()
        writer.close()

    async with AsyncExitStack() as stack:
        mute = await stack.enter_async_context(await asyncio.start_server(swallow, "127.0.0.1", 0))
        url = f"http://127.0.0.1:{mute.sockets[0].getsockname()[1]}"
        engine = stack.enter_context(servers.bare())
        config = servers.routes([url, engine.url]) | {
            "timeouts": {"first_byte_s": first_byte_s, "answer_s": first_byte_s}
        }
        gateway = await asyncio.to_thread(stack.enter_context, servers.gateway(config))
        tally = await _timed(Load([gateway.url], kinds=_SHORT, workers=8), 6.0)
        again = await asyncio.to_thread(retries, gateway)
        ended.set()
    happened = [f"{taken} requests swallowed"]
    yield Outcome("a backend that never answers", tally, happened, again, taken > 0 and tally.ends["ok"] == tally.total)


async def _timed(load: Load, seconds: float) -> Tally:
    until = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, until.set)
    return await load.run(until=until)


@contextmanager
def _gateway(urls: list[str]) -> Iterator[servers.Server]:
    # As many tries as a kill in the midst of a retry needs; short waits, because the stand-in engine is fast.
    config: dict[str, Any] = servers.routes(urls, max_concurrent=1000) | {"retries": {"attempts": 8}}
    with servers.gateway(config) as server:
        yield server


async def play(names: Sequence[str], requests: int) -> bool:
    """Scenarios by name; each outcome is printed as it is known. Whether all of them hold."""
    held = True
    print(HEADER, flush=True)
    for name in names:
        async for outcome in SCENARIOS[name](requests):
            print(outcome.line(), flush=True)
            held &= outcome.holds
    return held


SCENARIOS: dict[str, Callable[[int], Outcomes]] = {
    "silence": lambda _: silence(),
    "overload": lambda _: overload(),
    "gateways": lambda _: gateways(),
    "processes": lambda _: processes(),
    "changes": lambda _: changes(),
    "replicas": replicas,
}
