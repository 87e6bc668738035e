"""`python -m tests.bench.serving_engine [batching] [disconnects] [swap] [scaling]`: the engine's figures.

Batching is measured in tokens per second and, because other work on the machine distorts that, per second of CPU time.
Disconnects and swaps go over HTTP through HAProxy and Ray Serve on a random model of two layers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from jobs import settings
from jobs.backends.peft import with_adapter
from jobs.serving import app, local
from jobs.serving.engines.start import Replica
from jobs.serving.engines.task import Task
from jobs.serving.scaling import deployment_options
from jobs.serving.settings import AutoscalingSettings, ServingSettings
from jobs.settings import LoraSettings
from tests.bench.serving.engine import Engine, order
from tests.unit import tiny

_PASSES = 3
_TOKENS = 48
_CONTEXT_TOKENS = 4000
_DISCONNECTS = 1000
_QUESTION = "한국의 수도는 어디인가요?"


def batching() -> Iterator[str]:
    """Tokens per second of the default model at c=8 against c=1, interleaved."""
    replica = Replica(settings.from_tree({}, "benchmark"))
    prompt = tuple(replica.tokenizer("안녕하세요, 오늘은 한국의 역사에 대해 이야기해 봅시다.")["input_ids"])
    name = replica.engine.models[0]

    async def one() -> int:
        pieces = [piece async for piece in replica.engine.generate(Task(name, prompt, _TOKENS))]
        return pieces[-1].tokens

    async def rate(rows: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = sum(await asyncio.gather(*(one() for _ in range(rows))))
        return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)

    async def measure() -> list[tuple[tuple[float, float], tuple[float, float]]]:
        await replica.warm_up()
        return [(await rate(1), await rate(8)) for _ in range(_PASSES)]

    passes = asyncio.run(measure())
    replica.engine.close()
    for index, unit in enumerate(("s", "CPU second")):
        alone, together = (statistics.median(p[side][index] for p in passes) for side in (0, 1))
        yield f"tokens/{unit}: c=1 {alone:.1f}, c=8 {together:.1f}: {together / alone:.2f} × (bar 3 ×)"


def disconnects() -> Iterator[str]:
    """Clients that go away in the middle of a stream: time until the place is free, and what is left behind."""
    with (
        _served(most_rows=1, max_ongoing_requests=1, max_queued_requests=4) as (url, _),
        httpx.Client(timeout=60) as http,
    ):
        began = time.monotonic()
        _complete(http, url, "tiny", 3500)
        whole_s = time.monotonic() - began
        replica = next(
            p for p in psutil.process_iter(["cmdline"]) if "ServeReplica:chat:engine" in str(p.info["cmdline"])
        )
        waits, before = [], None
        for number in range(_DISCONNECTS):
            body = {"model": "tiny", "messages": _messages(_QUESTION), "max_tokens": 3500, "temperature": 0}
            with http.stream("POST", f"{url}/v1/chat/completions", json=body | {"stream": True}) as answer:
                next(answer.iter_raw())
            began = time.monotonic()
            _complete(http, url, "tiny", 1)
            waits.append(time.monotonic() - began)
            if number == _DISCONNECTS // 10:
                before = replica.memory_info().rss, replica.num_fds(), replica.num_threads()
        after = replica.memory_info().rss, replica.num_fds(), replica.num_threads()
    assert before is not None
    slow = sum(wait > 1 for wait in waits)
    yield (
        f"{len(waits)} disconnects: the next request is answered after p50 {statistics.median(waits) * 1e3:.0f} ms, "
        f"at most {max(waits) * 1e3:.0f} ms, {slow} over 1 s (a whole answer takes {whole_s:.1f} s)"
    )
    yield (
        f"from disconnect {_DISCONNECTS // 10} on: memory {(after[0] - before[0]) / 1e6:+.1f} MB, "
        f"files {after[1] - before[1]:+d}, threads {after[2] - before[2]:+d}"
    )


def swap() -> Iterator[str]:
    """An adapter replaced by a pushed configuration, ten times, under eight clients."""
    with _served(most_rows=8, max_ongoing_requests=16, max_queued_requests=32) as (url, push):
        with _load(url, "tuned", clients=8, tokens=8) as answers:
            for round_ in range(10):
                push({"tuned": ("one", "two")[round_ % 2]})
        lost = [answer for answer in answers if answer != 200]
    yield f"10 adapter swaps under load: {len(answers)} requests, {len(lost)} lost"


def scaling() -> Iterator[str]:
    """One replica to four under steady load, and back after it: our options of a deployment around the stand-in engine.

    A real engine's replica also loads torch and its model, which these two cores cannot do four times in ten seconds.
    """
    autoscaling = AutoscalingSettings(max_replicas=4, target_ongoing_requests=2)
    limits = {"cpus_per_replica": 0.1, "max_ongoing_requests": 16, "max_queued_requests": 64}
    options = deployment_options(ServingSettings(autoscaling=autoscaling, **limits))
    with local.serve_here(0) as url:
        from ray import serve  # it reads its environment when it is imported, which serve_here sets

        local.deploy(serve.deployment(serve.ingress(Engine())(_StandIn)).options(**options).bind())
        began = time.monotonic()
        with _load(url, "stand-in", clients=10, tokens=40, said=order(tokens=40, pace_ms=10)) as answers:
            up_s = _until(lambda: _replicas() >= 4, began)
            began = time.monotonic()
        down_s = _until(lambda: _replicas() == 1, began)
        lost = [answer for answer in answers if answer != 200]
    yield f"1 to 4 replicas in {up_s:.1f} s (bar 10 s), back in {down_s:.1f} s (bar 30 s)"
    yield f"meanwhile {len(answers)} requests, {len(lost)} lost"


class _StandIn:
    """A replica of the stand-in engine."""


@contextmanager
def _served(**serving: Any) -> Iterator[tuple[str, Callable[[dict[str, str]], None]]]:
    """The application on a tiny model: its address, and a function that pushes adapters by the names one and two."""
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as name:
        base, adapters = _models(Path(name))
        tree = {
            "model": {"source": str(base)},
            "storage": {"root": name},
            "serving": {"context_tokens": _CONTEXT_TOKENS, "adapters": {"tuned": str(adapters["one"])}} | serving,
        }

        def push(names: dict[str, str]) -> None:
            wanted = {name: str(adapters[which]) for name, which in names.items()}
            local.deploy(app.build(tree | {"serving": tree["serving"] | {"adapters": wanted}}))

        with local.serve_here(0) as url:
            local.deploy(app.build(tree))
            yield url, push


def _models(folder: Path) -> tuple[Path, dict[str, Path]]:
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer))
    model.config.max_position_embeddings = _CONTEXT_TOKENS
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    base = folder / "tiny"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapters = {}
    for name in ("one", "two"):
        adapted = with_adapter(type(model).from_pretrained(base), LoraSettings(rank=4))
        adapted.peft_config["default"].base_model_name_or_path = str(base)
        adapters[name] = folder / name
        adapted.save_pretrained(adapters[name])
    return base, adapters


@contextmanager
def _load(url: str, model: str, clients: int, tokens: int, said: str = _QUESTION) -> Iterator[list[int | str]]:
    """Clients that ask one request after the other; what each got, a status or an exception's name."""
    stop = threading.Event()
    answers: list[int | str] = []

    def ask() -> None:
        with httpx.Client(timeout=120) as http:
            while not stop.is_set():
                try:
                    answers.append(_complete(http, url, model, tokens, said))
                except httpx.HTTPError as error:
                    answers.append(type(error).__name__)

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(ask)
        try:
            yield answers
        finally:
            stop.set()


def _complete(http: httpx.Client, url: str, model: str, tokens: int, said: str = _QUESTION) -> int:
    body = {"model": model, "messages": _messages(said), "max_tokens": tokens, "temperature": 0}
    return http.post(f"{url}/v1/chat/completions", json=body).status_code


def _messages(said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": said}]


def _replicas() -> int:
    from ray import serve

    states = serve.status().applications["chat"].deployments["engine"].replica_states
    return int(sum(count for state, count in states.items() if state in ("RUNNING", "STOPPING")))


def _until(reached: Callable[[], bool], began: float) -> float:
    while not reached():
        time.sleep(0.2)
        if time.monotonic() - began > 180:
            return float("inf")
    return time.monotonic() - began


FIGURES: dict[str, Callable[[], Iterator[str]]] = {
    figure.__name__: figure for figure in (batching, disconnects, swap, scaling)
}


def main() -> None:
    """Print the figures that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="default: all")
    for name in parser.parse_args().figures or FIGURES:
        for line in FIGURES[name]():
            print(line, flush=True)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
