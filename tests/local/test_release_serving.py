"""An A/B test through the real gateway with simulated users; the engines behind it are as slow and bad as told."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from commands import conversations
from rows import jsonl

from jobs.errors import UsageError
from jobs.registry.versions import CHALLENGER, CHAMPION
from jobs.release import abtest, gateway
from jobs.release.local import LocalServing
from jobs.release.users import likeness, questions
from jobs.runs import EventLog, Run
from jobs.serving.gateway.config import Backend, Config
from jobs.settings import DataSettings, Settings, load
from jobs.storage import Storage

INTERVAL_S = 1.0
ALLOWED_S = INTERVAL_S + 60


class Quiet(ThreadingHTTPServer):
    """Says nothing of connections that the gateway drops when it ends."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """See the class."""


@dataclass
class Engine:
    """An HTTP server that speaks an engine's side of the protocol."""

    latency_s: float = 0.02
    fails_every: int = 0
    text: str = "안녕하세요, 10입니다."
    answered: int = 0
    last_asked_s: float = 0.0
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def backend(self) -> Backend:
        """Start it; it ends with the tests."""
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {"status": "ok"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number, engine.last_asked_s = next(engine._numbers), time.monotonic()
                if engine.fails_every and number % engine.fails_every == 0:
                    self._send(500, {"error": {"message": "broken"}})
                    return
                time.sleep(engine.latency_s)
                message = {"role": "assistant", "content": engine.text}
                usage = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                engine.answered += 1
                self._send(200, {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
                                 "choices": [choice], "usage": usage})  # fmt: skip

            def _send(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Keep the test's output quiet."""

        server = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Backend(urls=(f"http://127.0.0.1:{server.server_port}",), model="model", health_path="/health")


@dataclass(frozen=True)
class Engines:
    """Champion and challenger as told."""

    champion: Engine
    challenger: Engine

    @contextmanager
    def up(self, models: Mapping[str, Run]) -> Iterator[Mapping[str, Backend]]:
        """See `jobs.release.local.Engines`."""
        yield {CHAMPION: self.champion.backend(), CHALLENGER: self.challenger.backend()}


@pytest.fixture
def tree(tmp_path: Path) -> Settings:
    data = jsonl(tmp_path / "rows.jsonl", *conversations(30))
    fast = f"ab.interval_s={INTERVAL_S} ab.feedback_margin=0.2 ab.preference_margin=0.2 ab.max_duration_s=90"
    return load(None, f"data.source={data} data.held_out=0.3 {fast}")


def conduct(tree: Settings, engines: Engines, root: Path) -> tuple[dict[str, Any], float]:
    """The last look, and how long the test took from the challenger's first request on."""
    storage = Storage(str(root))
    runs = [Run.create(storage, "train", "{}\n") for _ in range(2)]
    log = Run.create(storage, "pipeline", "{}\n")
    with log.lock(), EventLog(log) as events, LocalServing(tree, engines).trial(*runs) as trial:
        found = abtest.conduct(trial, tree.ab, events)
        looks = [event.time_unix_s for event in events.read() if event.kind == abtest.LOOK]
        ended_s = time.monotonic()
        # Users go on. The gateway needs a second or two to see its file; from then on the champion alone answers them.
        while engines.champion.last_asked_s - engines.challenger.last_asked_s < 2:
            assert time.monotonic() < ended_s + ALLOWED_S, "the challenger is still asked"
            time.sleep(0.1)
    return found, looks[-1] - looks[0] + INTERVAL_S


@pytest.mark.long
@pytest.mark.parametrize(
    ("challenger", "metric"),
    [
        (Engine(latency_s=0.08), "latency"),
        (Engine(fails_every=20), "errors"),
        (Engine(text="Lorem ipsum dolor"), "feedback"),
    ],
)
def test_a_bad_challenger_is_off_traffic_in_time(
    tree: Settings, tmp_path: Path, challenger: Engine, metric: str
) -> None:
    found, took_s = conduct(tree, Engines(Engine(), challenger), tmp_path / "root")
    assert found["outcome"] == "roll back", found
    assert metric in [m["name"] for m in found["metrics"] if m["worse"]]
    assert took_s <= ALLOWED_S
    assert challenger.answered > 0


@pytest.mark.long
def test_a_challenger_as_good_as_the_champion_is_promoted(tree: Settings, tmp_path: Path) -> None:
    found, _ = conduct(tree, Engines(Engine(), Engine()), tmp_path / "root")
    assert found["outcome"] == "promote", found
    assert found["pairs"] >= tree.ab.min_pairs


def config() -> Config:
    backend = Backend(urls=("http://127.0.0.1:1",), model="m")
    variant = {"name": CHAMPION, "backend": "one"}
    return Config.model_validate({"backends": {"one": backend}, "models": {"haetsal": {"variants": [variant]}}})


def test_the_gateways_file_keeps_everything_else_and_ends_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    before = config()
    gateway.write(file, before)
    challenger = Backend(urls=("http://127.0.0.1:2",), model="c")
    during = gateway.with_challenger(gateway.read(file), "haetsal", challenger, 0.1)
    gateway.write(file, during)
    shares = {v.name: v.weight for v in gateway.read(file).models["haetsal"].variants}
    assert shares == {CHAMPION: 0.9, CHALLENGER: 0.1}
    assert gateway.without_challenger(during, "haetsal") == before
    assert gateway.without_challenger(before, "haetsal") == before
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.yaml"]


def test_a_model_that_the_gateway_does_not_have_is_named() -> None:
    with pytest.raises(UsageError, match="knows no model 'other'; it has haetsal"):
        gateway.champion_of(config(), "other")


def test_questions_are_the_held_out_conversations_and_texts_ask_none(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "rows.jsonl", *conversations(30))
    found = questions(DataSettings(source=str(data), held_out=0.3))
    assert found
    assert all(question.messages[-1]["role"] == "user" for question in found)
    texts = jsonl(tmp_path / "texts.jsonl", *({"text": f"글 {n}번입니다."} for n in range(30)))
    with pytest.raises(UsageError, match="holds texts and no conversations"):
        questions(DataSettings(source=str(texts), held_out=0.3))


def test_likeness_is_a_share_that_length_does_not_raise() -> None:
    assert likeness("서울입니다.", "서울입니다.") == 1
    assert likeness("abc", "서울") == 0
    assert likeness("", "서울") == 0
    assert likeness("서울입니다. " * 5, "서울입니다.") < likeness("서울입니다.", "서울입니다.")
