"""Who answers: weights, pins, stand-ins, shadows; and whose keys are taken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.processes import HTTP, ROOT, engine, gateway, metric

CHAT = "/v1/chat/completions"


def _chat(model: str = "haetsal", words: str = "tokens=1", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": words}], **more}


def _variant(stage: Stage, headers: dict[str, str] | None = None, **more: Any) -> str:
    answer = stage.client.post(CHAT, json=_chat(**more), headers=headers or {})
    variant = answer.headers["x-haetsal-variant"]
    said = "one" if variant == "champion" else "two"
    assert answer.json()["choices"][0]["message"]["content"].endswith(said), "the header says who answered"
    return variant


def test_users_and_sessions_stay_with_their_variant_and_strangers_do_not(stage: Stage):
    for kind in ({"user": "kim"}, {"headers": {"x-session-id": "tab-1"}}):
        assert len({_variant(stage, **kind) for _ in range(6)}) == 1
    assert {_variant(stage, user=f"user-{number}") for number in range(20)} == {"champion", "challenger"}
    assert {_variant(stage) for _ in range(30)} == {"champion", "challenger"}


def test_pin_overrides_the_weights(stage: Stage):
    for variant in ("champion", "challenger"):
        assert {_variant(stage, {"x-haetsal-variant": variant}, user=f"u{n}") for n in range(5)} == {variant}


def test_dead_address_is_retried_on_the_next_before_the_first_byte(stage: Stage):
    for stream in (True, False):
        answer = stage.client.post(CHAT, json=_chat("half-gone", stream=stream))
        assert answer.status_code == 200 and "one" in answer.text


def test_another_variant_stands_in_and_the_failed_one_is_counted(stage: Stage):
    answer = stage.client.post(CHAT, json=_chat("falls-back"))
    assert answer.headers["x-haetsal-variant"] == "challenger"
    pinned = stage.client.post(CHAT, json=_chat("falls-back"), headers={"x-haetsal-variant": "champion"})
    assert (pinned.status_code, pinned.headers["x-haetsal-variant"]) == (503, "champion")
    assert metric(stage.gateway, "variant_failures_total", model="falls-back", variant="champion") >= 1


def test_answers_are_counted_by_who_gave_them_and_how(stage: Stage):
    def counts() -> list[float]:
        return [
            metric(stage.gateway, "requests_total", model="haetsal", variant="champion", status="200"),
            metric(stage.gateway, "requests_total", model="haetsal", variant="challenger", status="200"),
            metric(stage.gateway, "requests_total", model="narrow", variant="", status="400"),
            metric(stage.gateway, "tokens_total", model="haetsal", variant="challenger", kind="completion"),
        ]

    before = counts()
    for variant, words in [("champion", "tokens=1"), ("champion", "tokens=1"), ("challenger", "tokens=3")]:
        stage.client.post(CHAT, json=_chat(words=words), headers={"x-haetsal-variant": variant})
    stage.client.post(CHAT, json=_chat("narrow", "status=400"))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [2, 1, 1, 3]


@pytest.mark.parametrize("words", ["status=503", "status=500", "status=404", "status=401"])
def test_backends_own_troubles_are_not_told(stage: Stage, words: str):
    for stream in (True, False):
        answer = stage.client.post(CHAT, json=_chat("narrow", words, stream=stream))
        assert answer.status_code == 503 and "secret" not in answer.text
        assert answer.json()["error"]["code"] == "unavailable"


def test_backends_refusal_of_the_request_is_passed_on_and_not_retried(stage: Stage):
    before = metric(stage.gateway, "retries_total", backend="narrow")
    answer = stage.client.post(CHAT, json=_chat("narrow", "status=400", stream=True))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no")
    assert metric(stage.gateway, "retries_total", backend="narrow") == before


@pytest.mark.parametrize(
    ("words", "reason"), [("cut=2", "reset"), ("end=2", "reset"), ("error=2", "error_event"), ("stall=2", "timeout")]
)
def test_broken_stream_ends_with_an_error_event_and_no_done(stage: Stage, words: str, reason: str):
    before = metric(stage.gateway, "stream_cuts_total", reason=reason)
    answer = stage.client.post(CHAT, json=_chat("narrow", words, stream=True))
    events = answer.text.split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in answer.text and "secret" not in answer.text and len(events) == 4
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-1]), "no half events"
    assert metric(stage.gateway, "stream_cuts_total", reason=reason) == before + 1


@pytest.mark.parametrize("words", ["cut=0", "end=0", "error=0"])
def test_stream_that_breaks_before_its_first_token_is_retried(stage: Stage, words: str):
    before = metric(stage.gateway, "retries_total", backend="narrow")
    answer = stage.client.post(CHAT, json=_chat("narrow", words, stream=True))
    assert answer.status_code == 503
    assert metric(stage.gateway, "retries_total", backend="narrow") == before + 3


def test_shadow_gets_a_copy_and_its_answer_goes_nowhere(stage: Stage):
    copies = HTTP.get(f"{stage.engines[1].url}/health").json()["requests"]
    for stream in (True, False):
        assert "two" not in stage.client.post(CHAT, json=_chat("shadowed", stream=stream)).text
    end = time.monotonic() + 5
    while metric(stage.gateway, "shadow_requests_total", model="shadowed", outcome="ok") < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert HTTP.get(f"{stage.engines[1].url}/health").json()["requests"] == copies + 2


def _keys(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "jobs.serving.gateway.keys", *arguments, "--file", str(folder / "keys.yaml")]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_keys_are_made_rotated_revoked_and_limited_while_the_gateway_runs(tmp_path: Path):
    first = _keys(tmp_path, "new", "--id", "team")
    file = tmp_path / "keys.yaml"
    assert first not in file.read_text() and first.split(".")[1] not in file.read_text()
    with (
        engine(tmp_path, wait=False) as one,
        gateway(
            tmp_path,
            {
                "keys_file": "keys.yaml",
                "backends": {"one": {"urls": [one.url], "model": "x"}},
                "models": {"haetsal": {"variants": [{"name": "champion", "backend": "one"}]}},
            },
        ) as proxy,
    ):

        def status(key: str) -> int:
            answer = HTTP.post(proxy.url + CHAT, json=_chat(), headers={"authorization": f"Bearer {key}"})
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            return answer.status_code

        def until(key: str, wanted: int) -> None:
            end = time.monotonic() + 10
            while status(key) != wanted:
                assert time.monotonic() < end
                time.sleep(0.1)

        assert status(first) == 200
        second = _keys(tmp_path, "new", "--id", "team")
        until(second, 200)
        assert status(first) == 200, "both are good during the overlap"
        file.write_text(file.read_text() + "    requests_per_minute: 2\n")
        until(second, 429)
        _keys(tmp_path, "revoke", "--id", "team")
        until(second, 401)
        assert status(first) == 401


def test_page_is_served_with_a_policy(stage: Stage):
    answer = HTTP.get(f"{stage.gateway.url}/")
    if answer.status_code == 404:
        pytest.skip("the page is not built in this checkout")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_image_needs_neither_ray_nor_torch():
    code = (
        "import sys, jobs.serving.gateway.server, jobs.storage;"
        "print(sorted({'ray', 'torch', 'transformers', 'numpy', 'mlflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
