"""An HTTP server that answers as a test says, hurts as a test says, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass(frozen=True)
class Says:
    """A status and a body; what is not bytes or text goes out as JSON."""

    status: int = 200
    body: Any = b""


@dataclass(frozen=True)
class Resets:
    """Cuts the connection when it has read the request."""


@dataclass(frozen=True)
class Stalls:
    """Says nothing until the test is over."""


@dataclass(frozen=True)
class Drips:
    """A byte now and then, for ever: each read succeeds, the answer never ends."""


Behaviour = Says | Resets | Stalls | Drips


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Listener:
    """A running server. `answers` by path without its query; `otherwise` for all that are not in it."""

    url: str = ""
    answers: dict[str, Behaviour] = field(default_factory=dict)
    otherwise: Behaviour = Says()
    asked: list[Asked] = field(default_factory=list)
    hurt: list[Behaviour] = field(default_factory=list)
    """Every reset, stall and drip that was carried out, and every status of 400 and more."""
    closed: Event = field(default_factory=Event)


@contextmanager
def listen() -> Iterator[Listener]:
    """A server on a port of its own, for as long as the block runs."""
    it = Listener()

    class Handler(_Handler):
        listener = it

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield it
    finally:
        it.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    listener: Listener

    def _answer(self) -> None:
        it, path = self.listener, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        it.asked.append(Asked(self.command, path, dict(self.headers), body))
        behaviour = it.answers.get(path, it.otherwise)
        if not isinstance(behaviour, Says) or behaviour.status >= 400:
            it.hurt.append(behaviour)
        match behaviour:
            case Says(status, said):
                data = (
                    said
                    if isinstance(said, bytes)
                    else said.encode()
                    if isinstance(said, str)
                    else json.dumps(said).encode()
                )
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            case Resets():
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            case Stalls():
                it.closed.wait(30)
            case Drips():
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                while not it.closed.wait(0.05):
                    self.wfile.write(b" ")
                    self.wfile.flush()

    def __getattr__(self, name: str) -> Callable[[], None]:
        """The base class looks for `do_GET` and so on."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            return  # the client is out of patience, or we have cut it off

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return

    def log_message(self, *_: Any) -> None:
        pass
