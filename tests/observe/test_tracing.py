"""Spans from the gateway to the engine, as a real collector gets them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import spans
from jobs.errors import EnvironmentNotReady, UsageError
from jobs.release.machine import Machine, Output, Outputs, Step
from jobs.runs import EventLog, Run
from jobs.spans import ENDPOINT, Spans
from jobs.storage import Storage
from tests.gateway.processes import HTTP, ROOT, Process, engine, free_port, gateway
from tests.observe import collector
from tests.observe.collector import Collector
from tests.observe.plant import wait_for

SECRET = "주민번호900101-1234567"


@pytest.fixture(scope="module")
def collecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    if collector.program() is None:
        pytest.skip("no collector: python -m tests.observe.collector builds one")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="make setup installs it")
    with collector.collecting(tmp_path_factory.mktemp("collector")) as it:
        yield it


def routes(url: str) -> dict[str, object]:
    gone = f"http://127.0.0.1:{free_port()}"
    return {
        "backends": {"main": {"urls": [gone, url], "model": "engine"}},
        "models": {"haetsal": {"variants": [{"name": "champion", "backend": "main"}]}},
    }


def ask(front: Process, words: str) -> None:
    body = {"model": "haetsal", "stream": "cut" in words, "messages": [{"role": "user", "content": words}]}
    HTTP.post(
        f"{front.url}/v1/chat/completions",
        json=body,
        headers={"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"},
    )


def test_a_request_is_one_trace_with_its_tries_and_nothing_of_its_text(
    collecting: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, collecting.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with engine(tmp_path) as answering, gateway(tmp_path, routes(answering.url)) as front:
        ask(front, f"tokens=2 {SECRET}")
        ask(front, f"tokens=8 cut=3 {SECRET}")
        wait_for(lambda: sum(s.name == "completion" for s in collecting.spans()) >= 2, "two requests' spans")
    found = [span for span in collecting.spans() if span.service == "haetsal-gateway"]
    whole, cut = [span for span in found if span.name == "completion"]
    tries = [span for span in found if span.name == "try" and span.trace == whole.trace]
    assert tries and all(span.parent == whole.id for span in tries)
    assert whole.parent == "" and whole.trace != "ab" * 16, "a client cannot write into our traces"
    assert "haetsal.status: Str(200)" in whole.text and "haetsal.variant: Str(champion)" in whole.text
    assert "haetsal.status: Str(cut)" in cut.text
    assert any("Status code    : Error" in span.text for span in found), "the address that refused is seen"
    log = collecting.log.read_text(encoding="utf-8")
    assert SECRET not in log and "900101" not in log


@pytest.mark.long
def test_the_engines_span_is_a_child_of_the_gateways_try(
    collecting: Collector, tmp_path: Path, inputs: tuple[Path, Path]
) -> None:
    model, _ = inputs
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        ENDPOINT: collecting.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "240",
    }
    log = tmp_path / "engine.log"
    with log.open("w") as out:
        command = [sys.executable, "tests/observe/serving.py", str(model), str(tmp_path)]
        served = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True)

    def engines() -> bool:
        assert served.poll() is None, log.read_text()[-2000:]
        return any(span.service == "haetsal-engine" for span in collecting.spans())

    with served:
        wait_for(engines, "the engine's own spans")
        url = wait_for(
            lambda: [w for w in log.read_text().split() if w.startswith("http://127.0.0.1:")], "its address"
        )[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ENDPOINT, collecting.endpoint)
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
            config = {
                "backends": {"main": {"urls": [url.rstrip("/.")], "model": "tiny"}},
                "models": {"haetsal": {"variants": [{"name": "champion", "backend": "main"}]}},
            }
            with gateway(tmp_path, config) as front:
                for stream in (False, True):
                    body = {"model": "haetsal", "stream": stream, "max_tokens": 2}
                    answer = HTTP.post(
                        f"{front.url}/v1/chat/completions",
                        json=body | {"messages": [{"role": "user", "content": "안녕"}]},
                    )
                    assert answer.status_code == 200, answer.text

                def joined() -> bool:
                    tries = {s.id for s in collecting.spans() if s.service == "haetsal-gateway" and s.name == "try"}
                    return sum(s.service == "haetsal-engine" and s.parent in tries for s in collecting.spans()) >= 2

                wait_for(joined, "engine's spans below the gateway's")


def test_the_steps_of_a_pipeline_are_one_trace(
    collecting: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, collecting.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    run = Run.create(Storage(str(tmp_path)), "pipeline", "")

    def fail(_: Outputs) -> Output:
        raise UsageError("on purpose")

    steps = [Step("learn", "learns", lambda _: {}, lambda _: {"a": 1}), Step("judge", "judges", lambda _: {}, fail)]
    with run.lock(), EventLog(run) as events, pytest.raises(UsageError):
        Machine(run.storage, events, lambda line: None, Spans("haetsal-pipeline")).carry_out(steps)

    def ours() -> dict[str, collector.Collected]:
        return {span.name: span for span in collecting.spans() if span.service == "haetsal-pipeline"}

    found = wait_for(lambda: len(ours()) == 3 and ours(), "three spans")
    assert {found["learn"].parent, found["judge"].parent} == {found["pipeline"].id}
    assert "Error" in found["judge"].text and "Error" not in found["learn"].text
    assert "on purpose" not in collecting.log.read_text(encoding="utf-8")


def test_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    with Spans("test").span("nothing") as span:
        assert span is None
    assert spans.headers(None) == {}


def test_turned_on_without_its_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(EnvironmentNotReady, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set, but .* is not installed"):
        Spans("test")
