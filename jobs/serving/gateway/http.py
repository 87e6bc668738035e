"""The little of HTTP that is needed, on bare ASGI.

No web framework: five routes need neither a router nor a stack of middleware, and each layer of those costs every
chunk of every stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from jobs.serving.gateway.connection import SCOPE_KEY, Connection
from jobs.serving.protocol import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

_DRAINED = 64
"""A body over the limit is read and thrown away up to this many times the limit: a client that still sends when the
connection closes sees a reset, not the answer."""


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class Call:
    """One request and the way to answer it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.connection: Connection = scope[SCOPE_KEY]
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = False
        """Whether the answer has begun."""
        self.ended = False
        """Whether all of it was handed over."""
        self.request_id = ""
        self.extra_headers: dict[str, str] = {}
        """Sent with whatever is answered."""

    def header(self, name: str) -> str | None:
        """A header of the request."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    async def body(self, limit_bytes: int) -> bytes:
        """The whole JSON body. Raises ApiError 413 over the limit, 415, and ClientGone."""
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # A page of another origin may send anything else without being asked, and would have its answer computed.
            raise ApiError(415, "The body must have content-type: application/json.", code="unsupported_media_type")
        announced = int(self.header("content-length") or 0)
        too_long = ApiError(413, f"The body is longer than {limit_bytes} bytes.", code="request_too_large")
        if announced > limit_bytes and (announced > _DRAINED * limit_bytes or self.header("expect")):
            raise too_long
        pieces, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            if size <= limit_bytes:
                pieces.append(piece)
            elif size > _DRAINED * limit_bytes:
                raise too_long
            if not message.get("more_body"):
                break
        if size > limit_bytes:
            raise too_long
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def respond(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> None:
        """The whole answer at once."""
        await self.start(status, content_type, [*headers, ("content-length", str(len(body)))])
        self.ended = True
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def start(self, status: int, content_type: str, headers: Headers = ()) -> None:
        """Status and headers; `piece` and `end` follow."""
        self.started = True
        every = [("content-type", content_type), *self.extra_headers.items(), *headers]
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in every]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def piece(self, data: bytes) -> None:
        """A piece of the body. Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of the body."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": b""})

    async def json(self, status: int, value: Any, headers: Headers = ()) -> None:
        """`value` as JSON."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        await self.respond(status, body, "application/json", headers)

    async def refuse(self, error: ApiError) -> None:
        """An error in OpenAI's shape. After 413 the connection is closed: the rest of the body may still come."""
        closing = [("connection", "close")] if error.status == 413 else []
        await self.json(error.status, error.body(), [*error.headers().items(), *closing])


async def while_there(call: Call, work: Awaitable[None]) -> None:
    """Do `work`, stopped at once when the client goes away. Raises ClientGone then. Only after `Call.body`."""
    task = asyncio.current_task()
    assert task
    left = False

    def leave() -> None:
        nonlocal left
        if not left:
            left = True
            task.cancel()

    call.connection.watch(leave)
    try:
        await work
    except asyncio.CancelledError:
        if left:
            task.uncancel()
            raise ClientGone from None
        raise
    finally:
        call.connection.watch(None)
