"""The gateway's long runs, with real processes and a stand-in for the engine that costs next to nothing.

    python -m tests.bench.gateway [kills] [leaves] [memory] [--requests N]

`kills`: 10,000 mixed requests while every 10 s, or when the last one is back, one of three replicas is killed.
`leaves`: a thousand clients that leave in the middle of a stream. `memory`: of the gateway, over 100,000.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import psutil

from tests.gateway.load import Load
from tests.gateway.processes import HTTP, Process, engine, gateway, metric

_EVERY_S = 10.0


def _config(*urls: str) -> dict[str, object]:
    return {
        "backends": {"all": {"urls": list(urls), "model": "fake", "health_path": "/health"}},
        "models": {"haetsal": {"variants": [{"name": "champion", "backend": "all"}]}},
    }


def _stage(stack: ExitStack, replicas: int) -> tuple[Path, Process, list[Process]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haetsal-bench-")))
    engines = [stack.enter_context(engine(folder, f"replica-{number}")) for number in range(replicas)]
    return folder, stack.enter_context(gateway(folder, _config(*(one.url for one in engines)))), engines


def kills(requests: int = 10_000) -> Iterator[tuple[str, str, bool]]:
    """Unary requests lost and streams silently cut while replicas die."""
    with ExitStack() as stack:
        folder, proxy, engines = _stage(stack, 3)
        killed = in_work = 0

        async def killing(load: Load) -> None:
            nonlocal killed, in_work
            while True:
                victim = engines[killed % len(engines)]
                seen = (await asyncio.to_thread(HTTP.get, f"{victim.url}/health")).json()
                in_work += seen["requests"] > seen["finished"] + seen["aborted"]
                victim.kill()
                await asyncio.to_thread(victim.popen.wait)
                killed += 1
                died = time.monotonic()
                again = engine(folder, f"again-{killed}", port=victim.port)
                # One at a time: on a busy machine a replica may need longer than that to start.
                engines[engines.index(victim)] = await asyncio.to_thread(stack.enter_context, again)
                await asyncio.sleep(died + _EVERY_S - time.monotonic())

        async def scenario() -> Load:
            load = Load([proxy.url], "", "haetsal", "tokens=20 delay_ms=10")
            death = asyncio.create_task(killing(load))
            await load.run(32, requests)
            death.cancel()
            return load

        outcomes = asyncio.run(scenario()).tally.outcomes
        about = f"of {sum(outcomes.values()):,} requests (70 % streams), {killed} kills, {in_work} of them in work"
        wrong = {name: count for name, count in outcomes.items() if name not in ("good", "cut", "silent")}
        proven = in_work > 0
        yield "unary requests lost", f"{wrong or 0} {about}", not wrong and proven
        yield "streams silently cut", str(outcomes["silent"]), not outcomes["silent"] and proven
        share = outcomes["cut"] / sum(outcomes.values())
        yield "streams cut with an error event", f"{outcomes['cut']} ({share:.2%})", True
        reasons = ("connect", "reset", "timeout", "status_5xx")
        tries = {reason: int(metric(proxy, "retries_total", reason=reason)) for reason in reasons}
        yield "tries that failed before the first byte", str(tries), sum(tries.values()) > 0


def leaves(clients: int = 1000) -> Iterator[tuple[str, str, bool]]:
    """Engine work stopped after clients that left, and what is left open in the gateway."""
    with ExitStack() as stack:
        _, proxy, (only,) = _stage(stack, 1)
        process = psutil.Process(proxy.popen.pid)
        before = process.num_fds()
        late: list[float] = []

        async def leave(session: aiohttp.ClientSession) -> None:
            body = {
                "model": "haetsal",
                "stream": True,
                "messages": [{"role": "user", "content": "tokens=10000 delay_ms=20"}],
            }
            async with session.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
                await response.content.readany()
                response.close()

        async def scenario() -> None:
            async with aiohttp.ClientSession() as session:
                for done in range(0, clients, 20):
                    await asyncio.gather(*(leave(session) for _ in range(20)))
                    left = time.monotonic()
                    while (await asyncio.to_thread(HTTP.get, f"{only.url}/health")).json()["aborted"] < done + 20:
                        await asyncio.sleep(0.01)
                    late.append(time.monotonic() - left)

        asyncio.run(scenario())
        yield "engine told that a client left, slowest", f"{max(late):.2f} s of {clients} clients", max(late) <= 1
        active, files = metric(proxy, "active_requests"), process.num_fds() - before
        yield "left open in the gateway", f"{active:.0f} requests, {files} files", active == 0 and files <= 4


def memory(requests: int = 100_000) -> Iterator[tuple[str, str, bool]]:
    """Resident memory after a tenth of the requests, and after all."""
    with ExitStack() as stack:
        _, proxy, _ = _stage(stack, 1)
        process = psutil.Process(proxy.popen.pid)

        async def scenario() -> list[int]:
            load = Load([proxy.url], "", "haetsal", "tokens=2", streams=0.5)
            running = asyncio.create_task(load.run(16, requests))
            held = []
            for tenth in range(1, 11):
                await load.until(requests * tenth // 10)
                held.append(process.memory_info().rss)
                print(f"{load.done:,} requests: {held[-1] / 2**20:.1f} MiB", file=sys.stderr)
            tally = await running
            assert tally.outcomes == {"good": requests}, tally.outcomes
            return held

        held = asyncio.run(scenario())
        text = f"{held[0] / 2**20:.1f} → {held[-1] / 2**20:.1f} MiB over {requests:,} requests"
        yield "memory of the gateway", text, held[-1] <= held[0] * 1.05


def main() -> None:
    """Run the named ones, all without a name. Exit code 1 if a bar is missed."""
    known: dict[str, Callable[..., Iterator[tuple[str, str, bool]]]] = {f.__name__: f for f in (kills, leaves, memory)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *known], help="default: all")
    parser.add_argument("--requests", type=int, help="fewer, for a quick look")
    options = parser.parse_args()
    missed = False
    for name in options.names or known:
        for what, value, met in known[name](options.requests) if options.requests else known[name]():
            print(f"| {what} | {value} | {'met' if met else 'MISSED'} |", flush=True)
            missed |= not met
    sys.exit(missed)


if __name__ == "__main__":
    main()
