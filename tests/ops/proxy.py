"""An HTTP proxy that hurts on purpose, and tells that it did.

It stands before S3 or the API server. For each request, `rule` may name a fault; every fault that was carried out is in
`happened`, so that a test can prove it. `changes` lists the requests that would change something.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


@dataclass(frozen=True)
class Answer:
    """Answer in the server's place."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reset:
    """Cut the connection: before the request is read, in the middle of its body, or with its answer lost."""

    when: str
    """`half`: after half of the body; `lost`: after the server has done it."""


@dataclass(frozen=True)
class Stall:
    """Say nothing until the client gives up."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL a process before the request reaches the server, or after the server has done it."""

    pid: Callable[[], int]
    after: bool


@dataclass(frozen=True)
class Hold:
    """Let the request pass only when the test says so."""

    arrived: Event
    release: Event


Fault = Answer | Reset | Stall | Kill | Hold


@dataclass(frozen=True)
class Request:
    """What a rule sees. `number` counts all requests, `change` those that change something, from 0."""

    method: str
    path: str
    number: int
    change: int | None


Rule = Callable[[Request], Fault | None]


def s3_error(status: int, code: str) -> Answer:
    """As S3 writes it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return Answer(status, body, {"Content-Type": "application/xml"})


def api_error(status: int, reason: str, **headers: str) -> Answer:
    """As the API server writes it."""
    body = {"kind": "Status", "status": "Failure", "reason": reason, "code": status, "message": "injected"}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers)


def first(count: int, matches: Callable[[Request], bool], fault: Fault) -> Rule:
    """The fault for the first `count` requests that match."""
    left = [count]
    lock = Lock()

    def rule(request: Request) -> Fault | None:
        with lock:
            if left[0] and matches(request):
                left[0] -= 1
                return fault
        return None

    return rule


class Proxy:
    """A running proxy."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.url = ""
        self.rule: Rule = lambda _: None
        self.happened: list[tuple[Fault, Request]] = []
        self.changes: list[str] = []
        self.closed = Event()
        self._number = 0
        self._lock = Lock()

    def reset(self, rule: Rule | None = None) -> None:
        """Count from 0 again, under another rule."""
        with self._lock:
            self.rule = rule or (lambda _: None)
            self.happened.clear()
            self.changes.clear()
            self._number = 0

    def decide(self, method: str, path: str) -> Fault | None:
        with self._lock:
            change = None
            if method not in ("GET", "HEAD"):
                change = len(self.changes)
                self.changes.append(f"{method} {path.partition('?')[0]}")
            request = Request(method, path, self._number, change)
            self._number += 1
            fault = self.rule(request)
            if fault:
                self.happened.append((fault, request))
            return fault

    def connect(self) -> http.client.HTTPConnection:
        host, port = self.upstream.hostname or "", self.upstream.port
        if self.upstream.scheme == "https":
            return http.client.HTTPSConnection(host, port, context=_UNVERIFIED, timeout=60)
        return http.client.HTTPConnection(host, port, timeout=60)


@contextmanager
def before(upstream: str) -> Iterator[Proxy]:
    """A proxy before `upstream`, for as long as the block runs."""
    proxy = Proxy(upstream)

    class Handler(_Handler):
        it = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait 40 ms for an acknowledgement
    it: Proxy

    def handle_one(self) -> None:
        fault = self.it.decide(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if isinstance(fault, Reset) and fault.when == "half":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self._body(length)
        match fault:
            case Answer():
                self._reply(fault.status, dict(fault.headers), fault.body)
                return
            case Stall():
                self.it.closed.wait(30)
                self._cut()
                return
            case Hold():
                fault.arrived.set()
                fault.release.wait(30)
            case Kill(after=False):
                os.kill(fault.pid(), signal.SIGKILL)
                self._cut()
                return
        self._forward(body, fault)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """The base class looks for `do_GET` and so on."""
        if name.startswith("do_"):
            return self.handle_one
        raise AttributeError(name)

    def _body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(length)
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        connection = self.it.connect()
        try:
            skipped = ("expect", "connection", "transfer-encoding", "content-length")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
            if body or self.command in ("PUT", "POST", "PATCH"):
                headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            if "watch=" in self.path:
                self._stream(answer)
                return
            data = answer.read()
            if isinstance(fault, Kill):
                os.kill(fault.pid(), signal.SIGKILL)
            if isinstance(fault, Kill | Reset):
                self._cut()
                return
            kept = ("transfer-encoding", "content-length", "connection")
            self._reply(answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in kept}, data)
        finally:
            connection.close()

    def _stream(self, answer: http.client.HTTPResponse) -> None:
        """A watch has no length: it ends with the connection."""
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while line := answer.readline():
                self.wfile.write(line)
                self.wfile.flush()
        except OSError:
            return  # the client has seen enough

    def _reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _cut(self) -> None:
        """RST instead of FIN, as a dead machine's peer sees it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client is gone: killed, or out of patience

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return

    def log_message(self, *_: Any) -> None:
        pass
