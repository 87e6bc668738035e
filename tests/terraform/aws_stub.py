"""The two AWS services that moto does not have: EKS add-on versions (with clusters) and Service Quotas for EC2.

A real HTTP server that speaks their wire format, for real boto3 clients; what it answers is set by the test.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlparse


@dataclass
class Answers:
    clusters: dict[str, str] = field(default_factory=dict)
    """Cluster name to API endpoint."""
    addons: dict[str, list[str]] = field(default_factory=dict)
    """Add-on name to the versions on offer."""
    quotas: dict[str, float] = field(default_factory=dict)
    """Quota code to vCPUs."""
    denied: bool = False
    url: str = ""


@contextmanager
def serve() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            name = url.path.rpartition("/")[2]
            if url.path == "/addons/supported-versions":
                addon = parse_qs(url.query)["addonName"][0]
                versions = [{"addonVersion": version} for version in answers.addons.get(addon, [])]
                self.reply(200, {"addons": [{"addonName": addon, "addonVersions": versions}]})
            elif name in answers.clusters:
                self.reply(200, {"cluster": {"name": name, "endpoint": answers.clusters[name]}})
            else:
                self.reply(404, {"message": f"No cluster found for name: {name}."}, "ResourceNotFoundException")

        def do_POST(self) -> None:
            code = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["QuotaCode"]
            if answers.denied:
                error = {"__type": "AccessDeniedException", "Message": "not authorized to perform GetServiceQuota"}
                self.reply(400, error)
            else:
                self.reply(200, {"Quota": {"QuotaCode": code, "Value": answers.quotas.get(code, 0.0)}})

        def reply(self, status: int, body: dict[str, object], error: str = "") -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            if error:
                self.send_header("x-amzn-ErrorType", error)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
