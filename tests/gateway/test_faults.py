"""Faults under load, with real processes. Each test proves that its fault happened.

`python -m tests.bench.gateway` runs the long versions.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.gateway.load import Load
from tests.gateway.processes import HTTP, Process, engine, gateway, metric, write

CHAT = "/v1/chat/completions"
ASK = {"model": "haetsal", "messages": [{"role": "user", "content": "tokens=1"}]}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    folder = tmp_path_factory.mktemp("engines")
    with engine(folder, "one", wait=False) as one, engine(folder, "two", wait=False) as two:
        one.wait_until("/health")
        two.wait_until("/health")
        yield one, two


def config(*urls: str, **changes: Any) -> dict[str, Any]:
    return {
        "backends": {"all": {"urls": list(urls), "model": "fake", "max_concurrent": 64}},
        "models": {"haetsal": {"variants": [{"name": "champion", "backend": "all"}]}},
        "timeouts": {"first_byte_s": 2, "answer_s": 2, "idle_s": 2, "connect_s": 1},
        "retries": {"probe_s": 0.3},
        **changes,
    }


def test_killed_replica_loses_nothing(tmp_path: Path):
    """Of two replicas one is killed under load, comes back, and then the other is."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(engine(tmp_path, name, wait=False)) for name in ("one", "two")]
        proxy = stack.enter_context(gateway(tmp_path, config(*(replica.url for replica in replicas))))
        for replica in replicas:
            replica.wait_until("/health")

        async def scenario() -> tuple[Load, int]:
            load = Load([proxy.url], "", "haetsal", "tokens=10 delay_ms=3")
            running = asyncio.create_task(load.run(16))
            in_work = 0
            for victim in replicas:
                await load.until(load.done + 60)
                in_work += HTTP.get(f"{victim.url}/health").json()["requests"] > 0
                victim.kill()
                await load.until(load.done + 60)
                port = victim.port
                await asyncio.to_thread(victim.popen.wait)
                again = await asyncio.to_thread(stack.enter_context, engine(tmp_path, f"again-{port}", port=port))
                assert again.popen.poll() is None
                await load.until(load.done + 60)
            load.stop()
            await running
            return load, in_work

        load, in_work = asyncio.run(scenario())
        assert in_work == 2, "the fault hit a replica that worked"
        assert load.tally.lost == {}
        assert metric(proxy, "retries_total") > 0
        assert metric(proxy, "stream_cuts_total") == load.tally.outcomes["cut"]


def test_hung_replica_is_passed_over_and_its_waiting_requests_go_elsewhere(tmp_path: Path, engines):
    """It accepts connections and never answers: SIGSTOP leaves its socket open."""
    with engine(tmp_path, "hung") as hung, gateway(tmp_path, config(hung.url, engines[0].url)) as proxy:
        hung.kill(signal.SIGSTOP)
        began = time.monotonic()
        load = Load([proxy.url], "", "haetsal", "tokens=2")
        asyncio.run(load.run(8, requests=200))
        assert load.tally.outcomes == {"good": 200}
        assert metric(proxy, "retries_total", reason="timeout") > 0
        assert metric(proxy, "ejected_urls") == 1
        assert time.monotonic() - began < 10
        hung.kill(signal.SIGCONT)
        end = time.monotonic() + 5
        while metric(proxy, "ejected_urls"):
            assert time.monotonic() < end, "it is taken back"
            time.sleep(0.05)


def test_nobody_there_is_503_and_not_ready_until_somebody_is(tmp_path: Path):
    with engine(tmp_path, "one") as one, gateway(tmp_path, config(one.url)) as proxy:
        one.kill()
        one.popen.wait()
        answer = HTTP.post(proxy.url + CHAT, json=ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1" and answer.headers["x-haetsal-variant"] == "champion"
        assert metric(proxy, "retries_total", reason="connect") == 4
        proxy.wait_until("/readyz", 503)
        with engine(tmp_path, "again", port=one.port):
            proxy.wait_until("/readyz", 200)
            assert HTTP.post(proxy.url + CHAT, json=ASK).status_code == 200


def test_overload_is_refused_with_the_time_to_wait_and_what_is_taken_stays_fast(tmp_path: Path, engines):
    """Forty clients for eight places: five times what fits."""
    tree = config(engines[0].url)
    tree["backends"]["all"] |= {"max_concurrent": 4, "max_queued": 4}
    with gateway(tmp_path, tree) as proxy:
        calm = asyncio.run(Load([proxy.url], "", "haetsal", "tokens=5 delay_ms=20").run(4, requests=20))
        over = asyncio.run(Load([proxy.url], "", "haetsal", "tokens=5 delay_ms=20").run(40, requests=400))
        assert set(over.outcomes) == {"good", "429"} and over.outcomes["429"] > 100
        assert median(over.seconds) < 4 * median(calm.seconds) + 0.5
        assert metric(proxy, "active_requests") == metric(proxy, "queued_requests") == 0


def test_weights_and_backends_change_under_load_and_a_bad_file_does_not(tmp_path: Path, engines):
    one, two = engines
    tree = config()
    tree["backends"] = {"a": {"urls": [one.url], "model": "x"}, "b": {"urls": [two.url], "model": "y"}}

    def weighted(champion: float, challenger: float) -> dict[str, Any]:
        variants = [
            {"name": "champion", "backend": "a", "weight": champion},
            {"name": "challenger", "backend": "b", "weight": challenger},
        ]
        return tree | {"models": {"haetsal": {"variants": variants}}}

    with gateway(tmp_path, weighted(1, 0)) as proxy:
        file = tmp_path / "gateway.yaml"

        async def until_reloads(result: str, count: int) -> None:
            while await asyncio.to_thread(metric, proxy, "config_reloads_total", result=result) < count:
                await asyncio.sleep(0.05)

        async def scenario() -> Load:
            load = Load([proxy.url], "", "haetsal", "tokens=3 delay_ms=2")
            running = asyncio.create_task(load.run(8))
            await load.until(50)
            assert set(load.tally.variants) == {"champion"}
            write(file, weighted(1, 1))
            await until_reloads("taken", 1)
            load.tally.by_user.clear()
            await load.until(load.done + 300)
            mixed = {user: set(variants) for user, variants in load.tally.by_user.items()}
            assert sum(len(variants) > 1 for variants in mixed.values()) <= 8, "sticky, but for what was in work"
            assert 60 < sum(variants == {"champion"} for variants in mixed.values()) < 140
            file.write_text("models: {")
            await until_reloads("refused", 1)
            await load.until(load.done + 20)
            write(file, weighted(0, 1))
            await until_reloads("taken", 2)
            await load.until(load.done + 20)
            load.tally.variants.clear()
            await load.until(load.done + 50)
            load.stop()
            await running
            return load

        load = asyncio.run(scenario())
        assert load.tally.lost == {} and load.tally.outcomes["cut"] == 0
        assert set(load.tally.variants) == {"challenger"}
        assert "the old ones stay in force" in proxy.log.read_text()


def test_one_of_two_gateways_is_killed_and_the_other_is_told_to_leave(tmp_path: Path, engines):
    """The killed one loses what it had in work, and only that; the one that is told to leave loses nothing, if the load
    balancer heeds its word: a connection that is not yet accepted when a listener closes is reset by the kernel."""
    tree = config(engines[0].url, drain={"announce_s": 4, "finish_s": 5})
    with (
        gateway(tmp_path, tree, name="first", ready="") as first,
        gateway(tmp_path, tree, name="second") as second,
    ):
        first.wait_until("/readyz")

        async def scenario() -> tuple[Load, int]:
            load = Load([first.url, second.url], "", "haetsal", "tokens=5 delay_ms=10")
            running = asyncio.create_task(load.run(8))
            await load.until(60)
            first.kill(signal.SIGSTOP)
            while not load.asking[first.url]:
                await asyncio.sleep(0.01)
            first.kill()
            await asyncio.to_thread(first.popen.wait)
            await load.until(load.done + 60)
            lost = sum(load.tally.lost.values())
            with gateway(tmp_path, tree, name="third") as third:
                load.urls = [third.url, second.url]
                await load.until(load.done + 60)
                while not load.asking[second.url]:
                    await asyncio.sleep(0.01)
                second.kill(signal.SIGTERM)
                await asyncio.to_thread(second.wait_until, "/readyz", 503)
                load.urls = [third.url]
                code = await asyncio.to_thread(second.popen.wait, 20)
                await load.until(load.done + 60)
                load.stop()
                await running
            assert code == 0
            return load, lost

        load, lost_by_kill = asyncio.run(scenario())
        assert 0 < lost_by_kill <= 8
        assert sum(load.tally.lost.values()) == lost_by_kill, "draining lost none"


def test_streams_that_outlast_the_drain_end_with_an_error_event(tmp_path: Path, engines):
    with gateway(tmp_path, config(engines[0].url, drain={"finish_s": 0.5})) as proxy:
        ask = {**ASK, "stream": True, "messages": [{"role": "user", "content": "tokens=1000 delay_ms=20"}]}
        with HTTP.stream("POST", proxy.url + CHAT, json=ask, timeout=30) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            proxy.kill(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "shutdown"
        assert proxy.popen.wait(20) == 0


def test_ctrl_c_ends_at_once(tmp_path: Path, engines):
    with gateway(tmp_path, config(engines[0].url)) as proxy:
        proxy.kill(signal.SIGINT)
        assert proxy.popen.wait(10) == 130
        assert "Traceback" not in proxy.log.read_text()
