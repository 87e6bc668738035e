"""A stand-in for an engine as a process of its own: it answers fast, slowly, wrongly, not at all, or dies.

    python engine.py PORT [NAME]

What it does is told by words in the last message, so that one process can serve every test:
`tokens=8 delay_ms=5 cut=3 hang stall=3 status=503 error=2 noise`. Without words: eight tokens at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import uvicorn

SEEN = {"requests": 0, "finished": 0, "aborted": 0}


def _orders(request: dict[str, Any]) -> dict[str, str]:
    last = request["messages"][-1]["content"] if "messages" in request else request["prompt"]
    return dict(word.partition("=")[::2] for word in last.split())


class Engine:
    """ASGI application. `name` is what it adds to each answer, so that a test sees who answered."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await _answer(send, 200, {"name": self.name, "pid": os.getpid(), **SEEN})
            return
        if not scope["path"].startswith("/v1/"):
            await _answer(send, 200, {"secret": "not for clients"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        SEEN["requests"] += 1
        work = asyncio.create_task(self._complete(scope, request, send))
        gone = asyncio.create_task(receive())
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            SEEN["finished"] += 1
        else:
            work.cancel()
            SEEN["aborted"] += 1
        gone.cancel()

    async def _complete(self, scope: Any, request: dict[str, Any], send: Any) -> None:
        orders = _orders(request)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        if "die" in orders:
            os._exit(1)
        if "hang" in orders:
            await asyncio.Event().wait()
        if "status" in orders:
            await _answer(send, int(orders["status"]), {"error": {"message": "an engine's secret", "code": "no"}})
            return
        tokens, delay_s = int(orders.get("tokens", 8)), float(orders.get("delay_ms", 0)) / 1000
        words = [f"햇살{index} " for index in range(tokens)]
        usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
        about = {"id": headers.get("x-request-id", "none"), "created": 1, "model": request["model"]}
        chat = "messages" in request
        if not request.get("stream"):
            await asyncio.sleep(delay_s * tokens)
            text = "".join(words) + self.name
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choice = {"index": 0, "finish_reason": "stop", **said}
            kind = "chat.completion" if chat else "text_completion"
            await _answer(send, 200, {**about, "object": kind, "choices": [choice], "usage": usage})
            return
        kind = "chat.completion.chunk" if chat else "text_completion"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})

        async def event(value: Any) -> None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            data = f"data: {text}\n\n".encode()
            if "noise" in orders:  # cut in the middle of a Hangul syllable
                await send({"type": "http.response.body", "body": data[:-20], "more_body": True})
                await asyncio.sleep(0.001)
                data = data[-20:]
            await send({"type": "http.response.body", "body": data, "more_body": True})

        for index, word in enumerate([*words, self.name]):
            if index == int(orders.get("cut", -1)):
                # Half an event, and then the connection is gone.
                await send({"type": "http.response.body", "body": b'data: {"half', "more_body": True})
                raise ConnectionAbortedError("cut, as ordered")
            if index == int(orders.get("end", -1)):
                await send({"type": "http.response.body", "body": b""})
                return
            if index == int(orders.get("stall", -1)):
                await asyncio.Event().wait()
            if index == int(orders.get("error", -1)):
                await event({"error": {"message": "an engine's secret"}})
                await send({"type": "http.response.body", "body": b""})
                return
            said = {"delta": {"content": word}} if chat else {"text": word}
            await event({**about, "object": kind, "choices": [{"index": 0, "finish_reason": None, **said}]})
            await asyncio.sleep(delay_s)
        last = {"delta": {}} if chat else {"text": ""}
        await event({**about, "object": kind, "choices": [{"index": 0, "finish_reason": "stop", **last}]})
        if request.get("stream_options", {}).get("include_usage"):
            await event({**about, "object": kind, "choices": [], "usage": usage})
        await event("[DONE]")
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Any, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        Engine(sys.argv[2] if len(sys.argv) > 2 else "engine"),
        port=int(sys.argv[1]),
        log_level="critical",
        access_log=False,
        timeout_keep_alive=75,
    )
