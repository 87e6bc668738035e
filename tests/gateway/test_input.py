"""What clients must not be able to do: each is refused in OpenAI's shape, and costs the gateway nothing."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest

from tests.gateway.conftest import Stage
from tests.gateway.processes import HTTP, metric

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def _chat(words: str = "tokens=1", model: str = "haetsal", **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": words}], **more}


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "cut off": _text(_chat())[:-3],
    "a list": b"[]",
    "a number": b"3",
    "invalid UTF-8": _text(_chat()).replace(b"tokens", b"\xff\xfe\x80"),
    "half a surrogate": _text(_chat()).replace(b"tokens", b"\\ud800"),
    "NaN": _text(_chat()).replace(b'"messages"', b'"temperature": NaN, "messages"'),
    "infinity": _text(_chat()).replace(b'"messages"', b'"top_p": 1e999, "messages"'),
    "deep": b"[" * 50_000,
    "deep inside": _text(_chat()).replace(b'"tokens=1"', b"[" * 5000 + b"]" * 5000),
    "no model": _text({"messages": []}),
    "model of the wrong type": _text({**_chat(), "model": 3}),
    "content of the wrong type": _text(_chat(words=7)),  # type: ignore[arg-type]
    "an image": _text(_chat(words=[{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])),  # type: ignore[arg-type]
    "text for a number": _text(_chat(max_tokens="5")),
    "truth for a number": _text(_chat(n=True)),
    "n of 0": _text(_chat(n=0)),
    "n of 16384": _text(_chat(n=16384)),
    "huge number": _text(_chat()).replace(b'"messages"', b'"seed": ' + b"9" * 5000 + b', "messages"'),
    "unknown parameter": _text(_chat(best_of=3)),
    "path for a model": _text(_chat(model="../../secret")),
    "model with NUL": _text(_chat(model="a\0b")),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_body_is_a_4xx_that_repeats_nothing(stage: Stage, name: str):
    answer = stage.client.post(CHAT, content=BODIES[name], headers=JSON)
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    for leak in ("tokens=1", "passwd", "Traceback", "site-packages", "pydantic"):
        assert leak not in answer.text


def test_body_that_is_too_long_is_413_announced_or_not(stage: Stage):
    body = _text(_chat("가" * 4_000_000))
    for content in (body, (body[start : start + 65_536] for start in range(0, len(body), 65_536))):
        answer = stage.client.post(CHAT, content=content, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_other_content_types_are_415(stage: Stage):
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = stage.client.post(CHAT, content=_text(_chat()), headers={"content-type": kind})
        assert answer.status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/admin", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/models/haetsal", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("GET", "/-/routes", 404),
        ("GET", "/health", 404),
        ("GET", "/docs", 404),
        ("GET", "/../server.py", 404),
        ("GET", "/..%2fserver.py", 404),
        ("GET", "/%2e%2e/server.py", 404),
        ("GET", "//etc/passwd", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", CHAT, 405),
    ],
)
def test_nothing_else_is_reachable(stage: Stage, method: str, path: str, status: int):
    answer = stage.client.request(method, httpx.URL(stage.gateway.url, raw_path=path.encode()))
    assert answer.status_code == status, answer.text
    assert "error" in answer.json() and "secret" not in answer.text
    assert "access-control-allow-origin" not in answer.headers


def test_open_routes_need_no_key_and_the_others_do(stage: Stage):
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v1/models", 401)):
        assert HTTP.get(stage.gateway.url + path).status_code == status
    for path in (CHAT, "/v1/completions", "/v1/feedback"):
        assert HTTP.post(stage.gateway.url + path, json={}).status_code == 401


def _raw(stage: Stage, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", stage.gateway.port), timeout=10)
    connection.sendall(head.format(key=stage.key).replace("\n", "\r\n").encode())
    return connection


def _rest(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65_536):
        data += piece
    return data


@pytest.mark.parametrize(
    "head",
    [
        "",
        "POST /v1/chat/comp",
        "POST /v1/chat/completions HTTP/1.1\nhost: x\nauthorization: Bearer {key}\n",
        "POST /v1/chat/completions HTTP/1.1\nhost: x\nauthorization: Bearer {key}\ncontent-type: application/json\n"
        "content-length: 100\n\n",
    ],
    ids=["nothing", "half a line", "half a header", "no body"],
)
def test_slow_loris_is_let_go_with_408(stage: Stage, head: str):
    began = time.monotonic()
    with _raw(stage, head) as connection:
        connection.settimeout(0.3)
        answer = b""
        while time.monotonic() - began < 8:
            try:
                piece = connection.recv(65_536)
            except TimeoutError:
                connection.sendall(b"\n" if not head else b"x")  # a byte now and then does not buy more time
                continue
            if not piece:
                break
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408") and b'"request_timeout"' in answer
    assert 1.0 < time.monotonic() - began < 6


def test_header_without_end_is_431_and_nonsense_400(stage: Stage):
    with _raw(stage, "GET / HTTP/1.1\nx: " + "a" * 70_000) as connection:
        assert _rest(connection).startswith(b"HTTP/1.1 431")
    with _raw(stage, "this is not HTTP\n\n") as connection:
        answer = _rest(connection)
        assert answer.startswith(b"HTTP/1.1 400") and b"invalid_http" in answer


def test_client_that_stops_reading_is_cut_off_and_the_engine_told(stage: Stage):
    before = stage.client.get(stage.engines[0].url + "/health").json()["aborted"]
    body = json.dumps(_chat("tokens=200000", model="narrow", stream=True))
    head = (
        f"POST {CHAT} HTTP/1.1\nhost: x\nauthorization: Bearer {{key}}\ncontent-type: application/json\n"
        f"content-length: {len(body)}\n\n"
    )
    with _raw(stage, head) as connection:
        connection.sendall(body.encode())
        assert connection.recv(100)
        end = time.monotonic() + 10
        while (seen := HTTP.get(stage.engines[0].url + "/health").json()["aborted"]) == before:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert seen == before + 1
    assert metric(stage.gateway, "active_requests") == 0


def test_client_that_leaves_stops_the_engine_at_once(stage: Stage):
    before = HTTP.get(stage.engines[0].url + "/health").json()["aborted"]
    for stream in (True, False):
        request = _chat("tokens=1000 delay_ms=10", model="narrow", stream=stream)
        if stream:
            with stage.client.stream("POST", CHAT, json=request) as answer:
                next(answer.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                stage.client.post(CHAT, json=request, timeout=0.5)
        left = time.monotonic()
        while HTTP.get(stage.engines[0].url + "/health").json()["aborted"] == before:
            assert time.monotonic() - left < 1
        before += 1


def test_pinned_variant_that_does_not_exist_is_400(stage: Stage):
    answer = stage.client.post(CHAT, json=_chat(), headers={"x-haetsal-variant": "mine"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_variant")


def test_logs_and_metrics_hold_no_prompt_no_key_no_user(stage: Stage):
    secret = "tokens=1 비밀-prompt-zqjx"
    for stream in (True, False):
        stage.client.post(CHAT, json=_chat(secret, user="user-wvkq", stream=stream))
    stage.client.post(CHAT, json=_chat(secret, temperature=9))
    told = stage.gateway.log.read_text() + HTTP.get(f"{stage.gateway.url}/metrics").text
    assert "key=tests" in told
    for word in ("zqjx", "비밀", "wvkq", stage.key, stage.key.split(".")[1]):
        assert word not in told
