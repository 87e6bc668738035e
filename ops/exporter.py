"""`python -m ops.exporter FOLDER [--port N]`: tell Prometheus what backup, drill, health and cost have found.

Operations are CronJobs, gone before anybody could ask them. What they found stays in one ConfigMap (ops/status.py),
which is mounted at FOLDER; it is read anew for every answer.
"""

from __future__ import annotations

import argparse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST

from jobs.cli import main
from jobs.errors import EnvironmentNotReady


def text(folder: Path) -> str:
    """All results, one after the other; none of them has a metric of another."""
    return "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.prom")))


def server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """The server, listening. Raises EnvironmentNotReady if the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/metrics": text(folder), "/healthz": "ok\n"}
            body = known.get(self.path, "").encode()
            self.send_response(200 if self.path in known else 404)
            self.send_header("content-type", CONTENT_TYPE_LATEST if self.path == "/metrics" else "text/plain")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not a line for every scrape."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise EnvironmentNotReady(f"{host}:{port}: cannot be listened on ({error.strerror}); choose --port") from None


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the ConfigMap is mounted")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    options = parser.parse_args()
    server(options.folder, options.host, options.port).serve_forever()


if __name__ == "__main__":
    main(_run)
