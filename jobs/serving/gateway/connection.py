"""uvicorn's HTTP protocol with the deadlines that it lacks. They cost nothing while all goes well.

- A request must have come within `request_s` of its first byte, header and body; a header has a greatest length. Idle
  connections end by uvicorn's keep-alive time, those that never ask anything by `request_s`.
- A client that does not read is cut off `write_s` after its buffer (64 KiB) is full.
- `watch` tells at once that a client is gone, without a task for each request that waits for it.
- What cannot be parsed is refused in OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from prometheus_client import Gauge
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from jobs.serving.gateway.config import Timeouts
from jobs.serving.protocol import ApiError

SCOPE_KEY = "haetsal.connection"
"""Where the application finds this object in its scope."""
_LONGEST_HEADER_BYTES = 65_536
_FAREWELL_S = 5.0
"""How long a client has to read why it is cut off."""


class Connection(HttpToolsProtocol):
    """One client's connection. A subclass says where `timeouts` are to be had, and what counts the connections."""

    timeouts: Callable[[], Timeouts]
    open_now: Gauge

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_body = False
        self._on_lost: Callable[[], None] | None = None

    def watch(self, on_lost: Callable[[], None] | None) -> None:
        """Call `on_lost` if the client goes, or is gone; None ends the watch. Only after the body was read."""
        self._on_lost = on_lost
        if on_lost:
            self.flow.resume_reading()
            if self.parser is None:
                self.loop.call_soon(on_lost)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.open_now.inc()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_now.dec()
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)
        if self._on_lost:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            self._arm()
        if not self._in_body:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._header_bytes > _LONGEST_HEADER_BYTES and not self._in_body:
            self._refuse(ApiError(431, "The header is too long.", code="header_too_long"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[SCOPE_KEY] = self  # type: ignore[literal-required]
        if self._deadline is None:
            self._arm()

    def on_headers_complete(self) -> None:
        self._in_body, self._header_bytes = True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm()
        self._in_body, self._header_bytes = False, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "The request is not valid HTTP.", code="invalid_http"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(self.timeouts().write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline:
            self._write_deadline.cancel()
            self._write_deadline = None

    def timeout_keep_alive_handler(self) -> None:
        # Not close(), which would wait without end for a client that does not read.
        self.transport.abort()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.timeouts().request_s, self._late)

    def _disarm(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if not self._in_body and self.cycle and not self.cycle.response_complete:
            self._arm()  # the beginning of a next request, while the answer to this one is on its way
            return
        self._refuse(ApiError(408, "The request did not come in time.", code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        self._disarm()
        if self.transport.is_closing():
            return
        if not (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            body = json.dumps(error.body()).encode()
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[error.status] + head + body)
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self.loop.call_later(_FAREWELL_S, self.transport.abort)
