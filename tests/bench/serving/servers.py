"""The processes that are measured and broken, each started when asked for and ended with its block."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[3]
_START_S = 120.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Server:
    """One of them: its address and its process."""

    url: str
    process: subprocess.Popen[str]

    def command(self, word: str) -> None:
        """Have a cluster do it, and wait until it is done."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().strip()
        assert line == f"done {word}", line or "the cluster is gone"

    def pids(self, title: str) -> list[int]:
        """Processes under it whose command line begins so, oldest first: `ray::ServeReplica`, `haproxy`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                words = process.cmdline()
                if words and (words[0].startswith(title) or Path(words[0]).name.startswith(title)):
                    found.append((process.create_time(), process.pid))
        return [pid for _, pid in sorted(found)]

    def rss_bytes(self) -> int:
        """Resident memory."""
        rss: int = psutil.Process(self.process.pid).memory_info().rss
        return rss


@contextlib.contextmanager
def bare(name: str = "engine") -> Iterator[Server]:
    """The engine on uvicorn, with nothing before it."""
    port = free_port()
    with _running(["tests.bench.serving.engine", f"--port={port}", f"--name={name}"], port) as server:
        yield server


@contextlib.contextmanager
def cluster(*, haproxy: bool, replicas: int = 1) -> Iterator[Server]:
    """The engine on Ray Serve, behind HAProxy or Serve's own proxy. Its files and ports are its own."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        first = 30_000 + port % 20 * 50
        environment = {
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(haproxy)),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 49),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
            "RAY_raylet_start_wait_time_s": "120",
        }
        command = ["tests.bench.serving.cluster", f"--port={port}", f"--replicas={replicas}"]
        with _running(command, port, environment, talks=True) as server:
            yield server


def routes(urls: Sequence[str], **more: Any) -> dict[str, Any]:
    """A gateway's file for one model, `chat`, behind `urls`."""
    return {
        "backends": {"engine": {"urls": list(urls), "model": "engine", **more}},
        "models": {"chat": {"variants": [{"name": "champion", "backend": "engine"}]}},
    }


@contextlib.contextmanager
def gateway(config: dict[str, Any]) -> Iterator[Server]:
    """The gateway itself. `config` is its file."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        path = Path(folder, "routes.yaml")
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        with _running(["jobs.serving.gateway", f"--config={path}", f"--port={port}"], port, ready="/readyz") as server:
            yield server


@contextlib.contextmanager
def _running(
    command: list[str], port: int, environment: dict[str, str] | None = None, *, talks: bool = False, ready: str = "/"
) -> Iterator[Server]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} if talks else {}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            text=True,
            stderr=errors,
            **pipes,
        )
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            if talks:
                assert process.stdout
                line = process.stdout.readline().strip()
                if line != "ready":
                    errors.seek(0)
                    raise RuntimeError(f"{command[0]} did not start:\n{errors.read()[-3000:]}")
            _await(server, ready, errors)
            yield server
        finally:
            _end(process, "quit\n" if talks else None)


def _await(server: Server, path: str, errors: Any) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}{path}", timeout=5) as answer:
            if answer.status == 200:
                return
        if server.process.poll() is not None:
            break
        time.sleep(0.05)
    errors.seek(0)
    raise RuntimeError(f"{server.process.args} does not answer {path}:\n{errors.read()[-3000:]}")


def _end(process: subprocess.Popen[str], word: str | None) -> None:
    """Ask it to end; then kill it with whatever it has started."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    with contextlib.suppress(subprocess.TimeoutExpired):
        if word:
            process.communicate(word, timeout=40)
        else:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)
    if process.poll() is None:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
