"""An engine that says a known text at a known pace: what a server adds, loses or changes is then its own doing.

    python -m tests.bench.serving.engine --port 8100 [--name champion]

It speaks the OpenAI API. The last message tells it what to do: `tokens=64 pace_ms=5` counts (`햇살0 햇살1 ...`), a
token each 5 ms; any other text is said back word by word.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import uvicorn

_ORDER = re.compile(r"tokens=(\d+) pace_ms=(\d+)")
_ECHO_PACE_S = 0.02
_TYPES = {True: (b"content-type", b"text/event-stream"), False: (b"content-type", b"application/json")}


def counted(tokens: int) -> str:
    """The text that `tokens=N` asks for."""
    return "".join(f"햇살{index} " for index in range(tokens))


def order(tokens: int, pace_ms: int) -> str:
    """The message that asks for it."""
    return f"tokens={tokens} pace_ms={pace_ms}"


class Engine:
    """ASGI application; `name` goes out as `system_fingerprint`, with the process id."""

    def __init__(self, name: str = "engine") -> None:
        self._fingerprint = f"{name}-{os.getpid()}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["method"] == "POST":
            await self._complete(json.loads(body), send)
        else:
            await _start(send, 200, stream=False)
            await send({"type": "http.response.body", "body": b'{"status":"ok"}'})

    async def _complete(self, request: dict[str, Any], send: Any) -> None:
        words, pace_s = _plan(request["messages"][-1]["content"] if "messages" in request else request["prompt"])
        usage = {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 5 + len(words)}
        about = {"id": "cmpl-1", "created": 1, "model": request["model"], "system_fingerprint": self._fingerprint}
        stream = bool(request.get("stream"))
        if not stream:
            if pace_s:
                await asyncio.sleep(pace_s * len(words))
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            await _start(send, 200, stream)
            answer = {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
            await send({"type": "http.response.body", "body": json.dumps(answer, ensure_ascii=False).encode()})
            return
        await _start(send, 200, stream)
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        for event, wait_s in _events(about, words, pace_s, usage if wants_usage else None):
            if wait_s:
                await asyncio.sleep(wait_s)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _plan(text: str) -> tuple[list[str], float]:
    if found := _ORDER.search(text):
        return [f"햇살{index} " for index in range(int(found[1]))], int(found[2]) / 1000
    return re.findall(r"\S+\s*|\s+", text), _ECHO_PACE_S


def _events(
    about: dict[str, Any], words: list[str], pace_s: float, usage: dict[str, int] | None
) -> Iterator[tuple[bytes, float]]:
    """Events of a stream, each with the seconds to wait before it."""
    about = {**about, "object": "chat.completion.chunk"}
    head = json.dumps(about)[:-1]
    for word in words:
        delta = json.dumps({"content": word}, ensure_ascii=False)
        choices = f'[{{"index": 0, "delta": {delta}, "finish_reason": null}}]'
        yield f'data: {head}, "choices": {choices}}}\n\n'.encode(), pace_s
    end = {**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield f"data: {json.dumps(end)}\n\n".encode(), 0.0
    if usage:
        yield f"data: {json.dumps({**about, 'choices': [], 'usage': usage})}\n\n".encode(), 0.0
    yield b"data: [DONE]\n\n", 0.0


async def _start(send: Any, status: int, stream: bool) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [_TYPES[stream]]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="engine")
    options = parser.parse_args()
    uvicorn.run(
        Engine(options.name),
        port=options.port,
        log_level="critical",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
