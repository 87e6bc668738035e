"""vLLM through Ray Serve against `vllm serve` alone, same engine arguments: `python -m tests.bench.vllm_serving MODEL`.

Needs a CUDA device and `ray[llm]` with its vLLM; exits 3 where either is missing. Both servers are started, warmed up,
measured and stopped one after the other, `--rounds` times, so that a machine that drifts does not favour one. A round
sends `--requests` streamed completions, `--concurrency` at a time, of fixed prompt and answer lengths, no two prompts
alike. Prints output tokens per second and time to first token (median, 95th percentile) of each
round, then Ray Serve's share of the throughput and what it adds to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

_PORT = 8100
_NAME = "model"
_START_LIMIT_S = 600.0
_ENGINE: dict[str, Any] = {"max_model_len": 4096, "gpu_memory_utilization": 0.9, "enable_prefix_caching": False}
"""Engine arguments of both; as options of `vllm serve` they are spelt with dashes."""


@dataclass(frozen=True)
class Round:
    """One server under one load."""

    server: str
    output_tokens_per_s: float
    first_token_median_ms: float
    first_token_p95_ms: float


def alone(model: str) -> list[str]:
    """The command that serves `model` with vLLM's own server."""
    options = []
    for name, value in _ENGINE.items():
        dashed = name.replace("_", "-")
        switch = f"--{dashed}" if value is True else f"--no-{dashed}"
        options.append(switch if isinstance(value, bool) else f"--{dashed}={value}")
    return ["vllm", "serve", model, f"--served-model-name={_NAME}", f"--port={_PORT}", *options]


def through_ray(model: str) -> list[str]:
    """The command that serves it through Ray Serve."""
    return [sys.executable, "-m", "tests.bench.vllm_serving", model, "--serve"]


def serve(model: str) -> None:
    """Serve `model` through Ray Serve in this process until it is told to end."""
    import ray
    from ray import serve as ray_serve
    from ray.serve.llm import LLMConfig, LLMServingArgs, build_openai_app

    config = LLMConfig(
        model_loading_config={"model_id": _NAME, "model_source": model},
        deployment_config={"num_replicas": 1, "max_ongoing_requests": 1024},
        engine_kwargs=_ENGINE,
    )
    ray.init(address="local", include_dashboard=False)
    ray_serve.start(http_options={"host": "127.0.0.1", "port": _PORT})
    ray_serve.run(build_openai_app(LLMServingArgs(llm_configs=[config])), blocking=True)


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """The server of `command`, from its first answer on; its whole process group ends with the context."""
    import httpx

    server = subprocess.Popen(command, start_new_session=True, stdout=sys.stderr)
    try:
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{_PORT}/v1/models").is_success:
                    break
            except httpx.TransportError:
                pass  # not up yet
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)}: not up (exit code {server.poll()}); its own words are above")
            time.sleep(1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


async def load(server: str, options: argparse.Namespace, seed: int) -> Round:
    """Send the requests and time them."""
    import httpx

    draw = random.Random(seed)
    gate = asyncio.Semaphore(options.concurrency)
    first_tokens_s: list[float] = []
    tokens = 0
    limits = httpx.Limits(max_connections=options.concurrency)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{_PORT}", timeout=600, limits=limits) as client:

        async def ask(prompt: list[int]) -> None:
            nonlocal tokens
            body = {
                "model": _NAME,
                "prompt": prompt,
                "max_tokens": options.output_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            async with gate:
                started, first = time.perf_counter(), None
                async with client.stream("POST", "/v1/completions", json=body) as response:
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        if not line.startswith("data: {"):
                            continue
                        part = json.loads(line[6:])
                        if first is None and part["choices"]:
                            first = time.perf_counter() - started
                        tokens += (part.get("usage") or {}).get("completion_tokens", 0)
                assert first is not None, "an answer without a token"
                first_tokens_s.append(first)

        prompts = [[draw.randrange(1000, 20_000) for _ in range(options.input_tokens)] for _ in range(options.requests)]
        started = time.perf_counter()
        await asyncio.gather(*(ask(prompt) for prompt in prompts))
        seconds = time.perf_counter() - started
    assert tokens == options.requests * options.output_tokens, f"{tokens} tokens came back"
    p95 = statistics.quantiles(first_tokens_s, n=20)[-1]
    return Round(
        server, round(tokens / seconds, 1), *(round(1e3 * s, 1) for s in (statistics.median(first_tokens_s), p95))
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.vllm_serving", description=__doc__)
    parser.add_argument("model", help="folder of a model")
    parser.add_argument("--requests", type=int, default=256, help="per round")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight")
    parser.add_argument("--input-tokens", type=int, default=512, help="length of each prompt")
    parser.add_argument("--output-tokens", type=int, default=128, help="length of each answer")
    parser.add_argument("--rounds", type=int, default=2, help="times that each server is started and measured")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("vllm_serving needs a CUDA device; this machine has none", file=sys.stderr)
        return 3
    if importlib.util.find_spec("vllm") is None:
        print("vllm_serving needs vLLM; install `ray[llm]` of this project's Ray version", file=sys.stderr)
        return 3
    if options.serve:
        serve(options.model)
        return 0
    rounds: list[Round] = []
    for number in range(options.rounds):
        for name, command in (("vllm serve", alone(options.model)), ("Ray Serve", through_ray(options.model))):
            with running(command):
                asyncio.run(load(name, options, seed=1000 + number))  # warm-up: graphs, caches, connections
                rounds.append(asyncio.run(load(name, options, seed=number)))
                print(json.dumps(asdict(rounds[-1])), flush=True)
    medians = {
        name: [
            statistics.median(getattr(r, figure) for r in rounds if r.server == name)
            for figure in ("output_tokens_per_s", "first_token_median_ms")
        ]
        for name in ("vllm serve", "Ray Serve")
    }
    (rate, first), (ray_rate, ray_first) = medians["vllm serve"], medians["Ray Serve"]
    print(f"throughput {ray_rate / rate:.3f} x, first token {ray_first - first:+.1f} ms ({ray_first / first:.2f} x)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
