"""Ray Serve and a gateway on this machine: started with the project's options, on loopback, and ended cleanly."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import child
from jobs.errors import EnvironmentNotReady

if TYPE_CHECKING:
    from ray import serve

HOST = "127.0.0.1"
_APP = "chat"
_DRAIN_S = 2.0
"""How long a replica that has to go stays reachable. Serve's 30 s are for load balancers on other nodes."""
_GATEWAY_START_S = 60.0
_PROXY_START_S = 60.0
"""As long as `serve.start` waits. Serve kills a proxy that is not up within 5 s, but importing it takes 18 s of a busy
machine."""


@contextmanager
def serve_here(preferred_port: int) -> Iterator[str]:
    """Ray and Ray Serve for as long as the context lasts; the address that applications will answer on.

    Raises EnvironmentNotReady if they do not come up.
    """
    _set_environment()
    import ray
    from ray import serve

    from jobs.ray_session import start_ray

    port = free_port(preferred_port)
    start_ray()
    try:
        try:
            serve.start(http_options={"host": HOST, "port": port})
        except (ray.exceptions.RayError, TimeoutError) as error:
            said = _last_words([str(error)]) or str(error).splitlines()[0]
            raise EnvironmentNotReady(f"Ray Serve did not start: {said}") from None
        yield f"http://{HOST}:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(application: serve.Application) -> None:
    """Run `application`, or bring the running one up to date; returns when its replicas are ready.

    Raises EnvironmentNotReady with what a replica said if none comes up.
    """
    from ray import serve

    try:
        serve.run(application, name=_APP, route_prefix="/")
    except RuntimeError as error:
        status = serve.status().applications.get(_APP)
        said = [status.message] if status else []
        said += [deployment.message for deployment in status.deployments.values()] if status else []
        raise EnvironmentNotReady(f"the engine did not start: {_last_words(said) or error}") from None


@contextmanager
def gateway(file: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway's process that follows `file`, ready, for as long as the context lasts.

    Raises EnvironmentNotReady if it does not come up.
    """
    arguments = ["--config", str(file), "--host", HOST, "--port", str(port)]
    process = child.start("serving.gateway", arguments)
    try:
        _wait_until_ready(process, f"http://{HOST}:{port}/readyz")
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _GATEWAY_START_S
    while time.monotonic() < deadline:
        with suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=1).close()
            return
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(0.1)
            raise EnvironmentNotReady(f"the gateway ended with code {code} before it was ready; its words are above")
    raise EnvironmentNotReady(f"the gateway was not ready within {_GATEWAY_START_S:.0f} s")


def _last_words(messages: list[str]) -> str:
    """The line of an exception at the end of what Serve quotes of a replica's traceback."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error: " in line or "NotReady: " in line), "")


def _set_environment() -> None:
    """What Ray Serve reads when it is imported, here and in the processes that it starts.

    HAProxy instead of the Python proxy serves six times the requests per second. The ports that Serve fixes for all
    clusters of a machine are replaced by free ones.
    """
    ports = {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
        "RAY_SERVE_HAPROXY_METRICS_PORT",
        "RAY_SERVE_HAPROXY_STATS_PORT",
    }
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(_PROXY_START_S),
    } | {name: str(free_port(0)) for name in ports}


def free_port(preferred: int = 0) -> int:
    """`preferred` if it is free, else one that is."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise EnvironmentNotReady(f"no port of {HOST} can be taken")
