"""The other side of the API: what operator, scheduler, kubelet and the job itself do, done by the tests."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from api_server import NAMESPACE
from kubernetes import client, watch
from kubernetes.client import ApiClient

RAY = ("ray.io", "v1", NAMESPACE)
NODE = "node-1"


class Operator:
    """Waits for RayJobs and writes their status, as KubeRay's reconciler does."""

    def __init__(self, api: ApiClient) -> None:
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)

    def next_job(self, but: set[str] = frozenset()) -> str:  # type: ignore[assignment]
        """Name of the first RayJob, now or to come, that is not among `but`."""
        stream = watch.Watch().stream(
            self.custom.list_namespaced_custom_object, *RAY, "rayjobs", timeout_seconds=20, _request_timeout=30
        )
        for event in stream:
            name = str(event["object"]["metadata"]["name"])
            if event["type"] == "ADDED" and name not in but:
                return name
        raise AssertionError("no RayJob within 20 s")

    def job(self, run_id: str) -> Any:
        return self.custom.get_namespaced_custom_object(*RAY, "rayjobs", run_id)

    def status(self, run_id: str, deployment: str, job: str = "", **fields: Any) -> None:
        body = {"status": {"jobDeploymentStatus": deployment, "jobStatus": job, **fields}}
        self.custom.patch_namespaced_custom_object_status(*RAY, "rayjobs", run_id, body)

    def cluster(self, run_id: str, suffix: str) -> str:
        """Make the Ray cluster of an attempt."""
        name = f"{run_id}-{suffix}"
        labels = {"ray.io/originated-from-cr-name": run_id}
        body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": name, "labels": labels}}
        self.custom.create_namespaced_custom_object(*RAY, "rayclusters", body)
        self.status(run_id, "Initializing", rayClusterName=name)
        return name

    def pod(self, name: str, labels: dict[str, str], status: dict[str, Any]) -> None:
        """Make a pod on the node whose kubelet is ours, and report its status."""
        container = {"name": "ray", "image": "job-gpu:0.1.0"}
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container], "nodeName": NODE}}
        self.core.create_namespaced_pod(NAMESPACE, body)
        self.core.patch_namespaced_pod_status(name, NAMESPACE, {"status": status})

    def submitter(self, run_id: str) -> None:
        """The pod that hands the job to Ray and prints its log."""
        labels = {"ray.io/originated-from-cr-name": run_id, "job-name": run_id}
        self.pod(f"{run_id}-sub", labels, {"phase": "Running"})

    def warn(self, kind: str, name: str, reason: str, message: str) -> None:
        """Record an event."""
        body = {
            "metadata": {"generateName": "event-", "namespace": NAMESPACE},
            "involvedObject": {"kind": kind, "name": name, "namespace": NAMESPACE},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "lastTimestamp": "2099-01-01T00:00:00Z",
        }
        self.core.create_namespaced_event(NAMESPACE, body)


@contextmanager
def alongside(act: Callable[[], None]) -> Iterator[None]:
    """Do the cluster's part in a thread; a failure in it fails the test."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)
            os.kill(os.getpid(), signal.SIGINT)  # ends the command that waits for us

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(180)
    assert not failures, failures[0]
    assert not thread.is_alive()


class Kubelet:
    """The one call of a kubelet that matters here: a container's log, which grows while it is read."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._ended = False
        self._changed = threading.Condition()
        self._read = 0
        self.cut_after: int | None = None
        """Break the connection after this many lines, once."""

    def write(self, text: str) -> None:
        with self._changed:
            number = len(self._lines)
            self._lines.append(f"2026-11-22T10:00:{number:02d}.000000000Z {text}\n".encode())
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def was_read(self) -> None:
        """Wait until somebody has been sent all lines so far."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._read == len(self._lines), timeout=20)

    def lines(self) -> Iterator[bytes]:
        """All lines; waits for more until the container ends."""
        sent = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda sent=sent: self._ended or len(self._lines) > sent, timeout=30)
                fresh, ended = self._lines[sent:], self._ended
            for line in fresh:
                if sent == self.cut_after:
                    self.cut_after = None
                    raise ConnectionAbortedError
                yield line
                sent += 1
                with self._changed:
                    self._read = max(self._read, sent)
                    self._changed.notify_all()
            if ended and sent == len(self._lines):
                return


@contextmanager
def kubelet(api: ApiClient, folder: Path) -> Iterator[Kubelet]:
    """Serve a kubelet and register its node."""
    served = Kubelet()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            try:
                for line in served.lines():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                pass  # cut on purpose, or the reader has left

        def log_message(self, *_: object) -> None:
            pass

    key, certificate = folder / "kubelet.key", folder / "kubelet.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate),
         "-days", "1", "-subj", "/CN=kubelet"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    core = client.CoreV1Api(api)
    core.create_node({"metadata": {"name": NODE}})
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    endpoint = {"kubeletEndpoint": {"Port": server.server_port}}
    core.patch_node_status(NODE, {"status": {"addresses": addresses, "daemonEndpoints": endpoint}})
    try:
        yield served
    finally:
        served.end()
        server.shutdown()
        server.server_close()
        core.delete_node(NODE)
