"""What observing costs: `python -m tests.bench.observability [steps] [requests]`.

`steps`: what a step's telemetry takes, in a process of a real Ray, over the step time of the default model.
`requests`: what a request's metrics take, over the time of a request through a real gateway.
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
from typing import Any

import aiohttp

from jobs.serving.gateway.metrics import Metrics
from tests.gateway.processes import Process, engine, gateway

_REQUESTS = 1000
_CALLS = 2000
_FAST_STEP_S = 0.05
"""What a step takes on a GPU with a small model."""


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
    share = each_s / _FAST_STEP_S
    yield "telemetry of a step of 50 ms", f"{each_s * 1e6:.0f} µs: {share:.3%} (bar 1 %)", share <= 0.01
    _, plain_s = step_overhead()
    share = each_s / plain_s
    yield (
        "the same of a step of the default model",
        f"{each_s * 1e6:.0f} µs of {plain_s * 1e3:.0f} ms: {share:.4%} (bar 1 %)",
        share <= 0.01,
    )


def requests() -> Iterator[tuple[str, str, bool]]:
    """The calls that one streamed completion makes, over the time that a request takes through a real gateway whose
    engine costs nothing: the quickest tenth of a thousand, so that a busy machine does not flatter the share."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haetsal-bench-")))
        only = stack.enter_context(engine(folder))
        config: dict[str, Any] = {
            "backends": {"all": {"urls": [only.url], "model": "fake", "health_path": "/health"}},
            "models": {"haetsal": {"variants": [{"name": "champion", "backend": "all"}]}},
        }
        request_s = asyncio.run(_quickest_tenth_s(stack.enter_context(gateway(folder, config))))
    calls_s = _calls_s(Metrics())
    share = calls_s / request_s
    said = f"{calls_s * 1e6:.0f} µs of {request_s * 1e3:.2f} ms: {share:.2%} (bar 2 %)"
    yield "metrics of a request", said, share <= 0.02


def _calls_s(metrics: Metrics) -> float:
    """Median time of all calls of a request, as completions.py, forward.py and backends.py make them."""
    taken = []
    for _ in range(_CALLS):
        began_s = time.perf_counter()
        metrics.queued.labels("all").inc()
        metrics.queued.labels("all").dec()
        metrics.active.labels("all").inc()
        metrics.active.labels("all").dec()
        metrics.requests.labels("haetsal", "champion", "200", "team-a").inc()
        metrics.tokens.labels("haetsal", "champion", "prompt", "team-a").inc(12)
        metrics.tokens.labels("haetsal", "champion", "completion", "team-a").inc(34)
        metrics.first_token.labels("haetsal", "champion").observe(0.02)
        metrics.duration.labels("haetsal", "champion").observe(0.3)
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken)


async def _quickest_tenth_s(process: Process) -> float:
    body = {"model": "haetsal", "messages": [{"role": "user", "content": "tokens=1"}]}
    taken = []
    async with aiohttp.ClientSession() as session:
        for _ in range(_REQUESTS):
            began_s = time.perf_counter()
            async with session.post(f"{process.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
                await response.read()
            taken.append(time.perf_counter() - began_s)
    return statistics.quantiles(taken, n=10)[0]


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
