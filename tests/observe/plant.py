"""Everything that exports metrics, as the real processes, and a real Prometheus that scrapes them.

A Ray head with its autoscaler, a training run, a study and the Serve application on it; a gateway with two variants
under load; backup, drill, retention, health and cost against an API server, served by the exporter.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.gateway.processes import HTTP, ROOT, free_port, running

PROMETHEUS = shutil.which("prometheus")
_GRAFANA = {"$__rate_interval": "30s", "$run": ".*", "$cluster": ".*"}
START_S = 240
"""Longest wait for anything here; Ray takes a minute to start on a machine that is busy."""
_NODE_TYPES = {
    "ray.head.default": {"resources": {"CPU": 4}, "node_config": {}, "max_workers": 0},
    "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1},
}
_NO_COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


def wait_for(what: Callable[[], Any], why: str, within_s: float = START_S) -> Any:
    """The first true answer of `what`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if found := what():
                return found
        time.sleep(0.2)
    raise AssertionError(f"{why}: not within {within_s:g} s")


@dataclass(frozen=True)
class Head:
    """A Ray head, and the environment that its drivers need."""

    address: str
    metrics: str
    autoscaler: str
    environ: dict[str, str]

    def text(self) -> str:
        """What it exports now."""
        return HTTP.get(f"http://{self.metrics}/metrics").text

    def driver(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A Python process that works on it, to its end."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=START_S
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done


@contextlib.contextmanager
def head(folder: Path) -> Iterator[Head]:
    """Started as KubeRay starts one, with the autoscaler beside it; reports every second instead of every ten."""
    file = folder / "autoscaler.yaml"
    file.write_text(
        yaml.safe_dump(
            {"cluster_name": "plant", "max_workers": 1, "upscaling_speed": 1.0, "idle_timeout_minutes": 60}
            | {"provider": {"type": "fake_multinode"}, "auth": {}, "file_mounts": {}, "cluster_synced_files": []}
            | {"head_node_type": "ray.head.default", "available_node_types": _NODE_TYPES}
            | {"file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": []}
            | {f"{name}_commands": [] for name in _NO_COMMANDS}
        )
    )
    gcs, metrics, agent, grpc, client, autoscaler = (free_port() for _ in range(6))
    environ = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_metrics_report_interval_ms": "1000",  # Ray lets go of a gauge after twice this
        "REPORTER_UPDATE_INTERVAL_MS": "1000",  # of the node's gauges
        "RAY_raylet_start_wait_time_s": str(START_S),
        "AUTOSCALER_METRIC_PORT": str(autoscaler),
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    # Ray's sockets have paths of at most 107 bytes, for which a folder of pytest's may be too long.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as short:
        command = [
            *("start", "--head", "--block", "--port", str(gcs), "--autoscaling-config", str(file), "--num-cpus", "4"),
            *("--metrics-export-port", str(metrics), "--dashboard-agent-listen-port", str(agent)),
            *("--dashboard-agent-grpc-port", str(grpc), "--ray-client-server-port", str(client)),
            *("--include-dashboard=false", "--disable-usage-stats", "--object-store-memory", "100000000"),
            *("--temp-dir", short),
        ]
        with (folder / "head.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *command],
                env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        address = f"127.0.0.1:{gcs}"
        it = Head(address, f"127.0.0.1:{metrics}", f"127.0.0.1:{autoscaler}", environ | {"RAY_ADDRESS": address})
        try:
            wait_for(lambda: "ray_node_cpu_utilization" in it.text(), "the head's metrics")
            yield it
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # `ray start --block` ends what it has started
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def as_asked(query: str) -> str:
    """A panel's query with what Grafana puts in for its variables."""
    for variable, value in _GRAFANA.items():
        query = query.replace(variable, value)
    return query


@dataclass(frozen=True)
class Prometheus:
    """The server, and since when it scrapes."""

    url: str
    began_s: float

    def returns_data(self, query: str) -> bool:
        """Whether a query had an answer at any second until now, as a panel over that time would draw it."""
        asked = {"query": query, "start": self.began_s, "end": time.time(), "step": "2s"}
        answer = HTTP.get(f"{self.url}/api/v1/query_range", params=asked).json()
        assert answer["status"] == "success", (query, answer)
        return bool(answer["data"]["result"])

    def names(self) -> set[str]:
        """All names of metrics that were ever scraped."""
        return set(HTTP.get(f"{self.url}/api/v1/label/__name__/values").json()["data"])

    def series(self, name: str) -> list[dict[str, str]]:
        """Labels of all series of a metric."""
        asked = {"match[]": name, "start": self.began_s, "end": time.time()}
        return list(HTTP.get(f"{self.url}/api/v1/series", params=asked).json()["data"])


@contextlib.contextmanager
def prometheus(folder: Path, targets: dict[str, list[str]], of_kubernetes: dict[str, str]) -> Iterator[Prometheus]:
    """Scrapes `targets` by job every two seconds. `of_kubernetes` are labels that the operator would add."""
    assert PROMETHEUS
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": found, "labels": of_kubernetes}]}
            for job, found in targets.items()
        ],
    }
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(json.dumps(config))
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [PROMETHEUS, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    it = Prometheus(f"http://127.0.0.1:{port}", time.time())
    try:
        wait_for(lambda: HTTP.get(f"{it.url}/-/ready").status_code == 200, "Prometheus")
        yield it
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def exporter(folder: Path) -> Iterator[str]:
    """The exporter over a folder as the ConfigMap would be mounted; its address."""
    port = free_port()
    with running(["-m", "ops.exporter", str(folder), "--port", str(port)], port, folder / "log", "/healthz"):
        yield f"127.0.0.1:{port}"
