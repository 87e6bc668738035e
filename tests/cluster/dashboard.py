"""What the dashboard of a Ray head answers, for heads that KWOK plays: those run nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LONGEST_S = 120


class Dashboard:
    """A head with no Serve applications and one job, of whatever id it is asked for."""

    def __init__(self) -> None:
        self.state, self.message = "RUNNING", ""
        """Of the job."""
        self.tokens: set[str] = set()
        """What callers showed to be let in."""
        self.url = ""
        self._asked, self._free = threading.Event(), threading.Event()
        self._free.set()

    @contextmanager
    def serving(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[None]:
        """Answer for as long as the block runs."""
        dashboard = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                dashboard._asked.set()
                dashboard._free.wait(_LONGEST_S)
                dashboard.tokens.add(self.headers.get("x-ray-authorization", ""))
                body = json.dumps(dashboard._answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer((host, port), Handler)
        self.url = f"http://{host}:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    @contextmanager
    def silent(self) -> Iterator[threading.Event]:
        """Answer nothing for as long as the block runs; the event says that somebody has asked meanwhile."""
        self._asked.clear()
        self._free.clear()
        try:
            yield self._asked
        finally:
            self._free.set()

    def _answer(self, path: str) -> Any:
        if path.startswith("/api/serve/applications"):
            return {"applications": {}}
        if path.rstrip("/") == "/api/jobs":
            return []
        if not path.startswith("/api/jobs/"):
            return "success"
        job = path.rpartition("/")[2]
        return {
            "submission_id": job, "job_id": job, "type": "SUBMISSION", "entrypoint": "it", "metadata": {},
            "status": self.state, "message": self.message, "start_time": 1, "end_time": 0,
        }  # fmt: skip
