"""What each way to the engine costs: requests per second, latency, time to the first token. All ways by turns."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bench.serving import servers
from tests.bench.serving.driver import NOTHING, STREAM, Load, Tally, p50_ms

BARE, SERVE, HAPROXY, WHOLE = "bare uvicorn", "Serve, default proxy", "Serve, HAProxy", "gateway + Serve, HAProxy"
ROUNDS = 5
_UNARY = {1: 300, 16: 1500}
"""Requests of a round by workers."""
_STREAMS = {1: 12, 32: 96}


@dataclass(frozen=True)
class Speed:
    """Medians over all rounds."""

    per_second: dict[int, float]
    p50_ms: dict[int, float]
    first_token_ms: dict[int, float]


@contextlib.contextmanager
def ways() -> Iterator[dict[str, str]]:
    """All four, running, by name: their addresses."""
    with (
        servers.bare() as bare,
        servers.cluster(haproxy=False) as default,
        servers.cluster(haproxy=True) as haproxy,
        servers.gateway(servers.routes([haproxy.url], max_concurrent=1000)) as gateway,
    ):
        yield {BARE: bare.url, SERVE: default.url, HAPROXY: haproxy.url, WHOLE: gateway.url}


def measure(urls: Mapping[str, str], rounds: int = ROUNDS) -> dict[str, Speed]:
    """Every way under every load, interleaved, there and back. The first round warms up and is thrown away."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for number in range(rounds + 1):
        names = list(urls) if number % 2 else list(urls)[::-1]
        for workers, requests in _UNARY.items():
            for name in names:
                tally = _load(urls[name], NOTHING, workers, requests)
                found.setdefault((name, "per_second", workers), []).append(tally.total / tally.took_s)
                found.setdefault((name, "p50", workers), []).append(p50_ms(tally.unary_s))
        for workers, requests in _STREAMS.items():
            for name in names:
                tally = _load(urls[name], STREAM, workers, requests)
                found.setdefault((name, "first", workers), []).append(p50_ms(tally.first_token_s))

    def medians(name: str, what: str, loads: Mapping[int, int]) -> dict[int, float]:
        return {workers: statistics.median(found[name, what, workers][1:]) for workers in loads}

    return {
        name: Speed(medians(name, "per_second", _UNARY), medians(name, "p50", _UNARY), medians(name, "first", _STREAMS))
        for name in urls
    }


def _load(url: str, kind: object, workers: int, requests: int) -> Tally:
    tally = asyncio.run(Load([url], kinds=[(kind, 1.0)], workers=workers).run(requests))
    assert tally.ends["ok"] == requests, f"{url}: {tally.line()}"
    return tally


def table(speeds: Mapping[str, Speed]) -> str:
    """As Markdown."""
    lines = [
        "| way | req/s c=1 | p50 c=1, ms | req/s c=16 | p50 c=16, ms | first token c=1, ms | c=32, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, s in speeds.items():
        cells = [
            s.per_second[1],
            s.p50_ms[1],
            s.per_second[16],
            s.p50_ms[16],
            s.first_token_ms[1],
            s.first_token_ms[32],
        ]
        digits = (0, 2, 0, 1, 1, 1)
        lines.append(f"| {name} | " + " | ".join(f"{c:,.{d}f}" for c, d in zip(cells, digits, strict=True)) + " |")
    return "\n".join(lines)


def figures() -> Iterator[tuple[str, str, str, bool]]:
    """Lines for the table of all benchmarks: what, measured, bar, met. Prints the whole table on its way."""
    with ways() as urls:
        speeds = measure(urls)
    print(table(speeds), flush=True)
    bare, default, whole = speeds[BARE], speeds[SERVE], speeds[WHOLE]
    rate, p50 = whole.per_second[1] / default.per_second[1], whole.p50_ms[1] / default.p50_ms[1]
    yield "requests/s, gateway + Serve against Serve's default proxy, c=1", f"{rate:.1f} ×", "≥ 4 ×", rate >= 4
    yield "p50 of the same", f"{p50:.2f} ×", "≤ 0.4 ×", p50 <= 0.4
    more = whole.first_token_ms[1] - bare.first_token_ms[1]
    yield "time to first token over bare uvicorn, c=1", f"{more:+.1f} ms", "≤ +4 ms", more <= 4
    times = whole.first_token_ms[32] / bare.first_token_ms[32]
    yield "time to first token against bare uvicorn, c=32", f"{times:.2f} ×", "≤ 2 ×", times <= 2


def memory(requests: int = 100_000, points: int = 10) -> Iterator[tuple[str, str, str, bool]]:
    """The gateway's resident memory while it answers `requests`, a twentieth of them streams."""
    rss: list[float] = []
    kinds = [(NOTHING, 0.95), (type(STREAM)(True, 8, 0), 0.05)]
    with servers.bare() as bare, servers.gateway(servers.routes([bare.url], max_concurrent=1000)) as gateway:
        for point in range(points):
            load = Load([gateway.url], kinds=kinds, workers=16, seed=point)
            tally = asyncio.run(load.run(requests // points))
            assert tally.ends["ok"] == tally.total, tally.line()
            rss.append(gateway.rss_bytes() / 2**20)
            print(f"{(point + 1) * requests // points:,} requests: {rss[-1]:.1f} MiB", flush=True)
    growth = rss[-1] / rss[0] - 1
    value = f"{rss[0]:.0f} → {rss[-1]:.0f} MiB ({growth:+.1%} after the first tenth)"
    yield f"memory of the gateway over {requests:,} requests", value, "≤ +5 %", growth <= 0.05
