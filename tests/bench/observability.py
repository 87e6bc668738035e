"""What observing costs: `python -m tests.bench.observability [steps] [requests]`.

`steps`: what a step's telemetry takes, in a process of a real Ray, over the step time of the default model.
`requests`: time to answer a request with all metrics against one with none, at the gateway, taking turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from tests.gateway.processes import Process, engine, free_port, gateway, running, write

_ROUNDS, _REQUESTS, _WARM_UP = 40, 100, 200
_CALLS = 2000


def steps() -> Iterator[tuple[str, str, bool]]:
    """Every call that a log point makes (log_every_steps=1 is the most there can be) over the time of a step."""
    import ray

    from jobs import settings
    from jobs.costs.meter import Meter
    from jobs.ray_session import start_ray
    from jobs.runs import EventLog, Run
    from jobs.storage import Storage
    from jobs.training.feed import Feed
    from jobs.training.telemetry import Telemetry
    from tests.bench.steps import step_overhead

    _, plain_s = step_overhead()
    tree = settings.load(None, "cost.usd_per_hour.training=1 cost.run_budget_usd=1")
    start_ray()
    with tempfile.TemporaryDirectory() as root:
        run = Run.create(Storage(root), "train", settings.to_yaml(tree))
        with run.lock(), EventLog(run) as events:
            telemetry, feed = Telemetry(run.id, Meter(tree, "train", events)), Feed()
            import torch

            rows = torch.ones(tree.train.batch_size, 128, dtype=torch.long)
            batches = iter([{"input_ids": rows, "attention_mask": rows}] * _CALLS)
            taken: list[float] = []
            watched = feed.watched(batches)
            for step in range(_CALLS):
                began_s = time.perf_counter()
                next(watched)
                values = {"loss": 2.0, "tokens": 900.0, "busy_seconds": 1.0, "step_seconds": 1.0} | feed.take(1)
                telemetry.point(step, _CALLS, values)
                taken.append(time.perf_counter() - began_s)
    ray.shutdown()
    each_s = statistics.median(taken)
    share = each_s / plain_s
    yield (
        "telemetry of a step",
        f"{each_s * 1e6:.0f} µs of {plain_s * 1e3:.0f} ms: {share:.4%} (bar 1 %)",
        share <= 0.01,
    )
    fast_s = 0.05
    at_50 = each_s / fast_s
    yield "the same of a step of 50 ms", f"{at_50:.3%} (bar 1 %)", at_50 <= 0.01


_WITHOUT = """
import runpy, sys
from prometheus_client import Counter, Gauge, Histogram
class Nothing:
    def labels(self, *_): return self
    def inc(self, *_): pass
    def dec(self, *_): pass
    def set(self, *_): pass
    def observe(self, *_): pass
from jobs.serving.gateway import metrics
for name in ("_counter", "_gauge", "_seconds"):
    setattr(metrics.Metrics, name, lambda self, name: Nothing())
sys.argv[0] = "gateway"
runpy.run_module("jobs.serving.gateway", run_name="__main__")
"""


def requests() -> Iterator[tuple[str, str, bool]]:
    """Two gateways before one engine, one of them with every metric replaced by nothing; a hundred requests each, in
    turns. The median of the rounds' ratios, since a busy machine changes its speed from round to round."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haetsal-bench-")))
        only = stack.enter_context(engine(folder))
        config = {
            "backends": {"all": {"urls": [only.url], "model": "fake", "health_path": "/health"}},
            "models": {"haetsal": {"variants": [{"name": "champion", "backend": "all"}]}},
        }
        counted = stack.enter_context(gateway(folder, config))
        port = free_port()
        write(folder / "bare.yaml", config)
        arguments = ["-c", _WITHOUT, "--config", str(folder / "bare.yaml"), "--port", str(port)]
        bare = stack.enter_context(running(arguments, port, folder / "bare.log", "/readyz"))
        assert "haetsal_gateway_requests_total" not in _metrics(bare)
        assert "haetsal_gateway_requests_total" in _metrics(counted)
        ratios = asyncio.run(_compare(counted, bare))
    low, ratio, high = statistics.quantiles(ratios, n=4)
    said = f"{ratio - 1:+.2%} (quartiles {low - 1:+.2%}, {high - 1:+.2%}; bar 2 %)"
    yield "metrics' share of a request's time at the gateway", said, ratio <= 1.02


def _metrics(process: Process) -> str:
    from tests.gateway.processes import HTTP

    return HTTP.get(f"{process.url}/metrics").text


async def _compare(one: Process, other: Process) -> list[float]:
    body = {"model": "haetsal", "messages": [{"role": "user", "content": "tokens=1"}]}

    async def median_s(session: aiohttp.ClientSession, process: Process, count: int) -> float:
        taken = []
        for _ in range(count):
            began_s = time.perf_counter()
            async with session.post(f"{process.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
                await response.read()
            taken.append(time.perf_counter() - began_s)
        return statistics.median(taken)

    async with aiohttp.ClientSession() as session:
        for process in (one, other):
            await median_s(session, process, _WARM_UP)
        found = []
        for number in range(_ROUNDS):
            pair = (one, other) if number % 2 else (other, one)
            took = {process.port: await median_s(session, process, _REQUESTS) for process in pair}
            found.append(took[one.port] / took[other.port])
        return found


_PARTS: dict[str, Callable[[], Iterator[tuple[str, str, bool]]]] = {"steps": steps, "requests": requests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], help="default: all")
    met = True
    for name in parser.parse_args().parts or _PARTS:
        for what, value, good in _PARTS[name]():
            print(f"{what:<55} {value}{'' if good else '   MISSED'}", flush=True)
            met &= good
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
