"""What commands cost as the cluster grows: many nodes, many runs of which one in ten is under way."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from api_server import NAMESPACE, ApiServer

from jobs.runs import EventLog, Run
from jobs.storage import Storage
from tests.charts.helm import ROOT, Helm, only
from tests.cluster import kwok
from tests.cluster.dashboard import Dashboard
from tests.cluster.kube import Kube, Object, path, stamp, up

STORAGE = "s3://haetsal/artifacts"
"""What the profile `kind` names."""
UNDER_WAY = 10
"""One run in so many has a Ray cluster."""
NODES_PER_RUN = 0.5
BARS = {"submission": (20, 650), "listing": (10, 350), "health check": (20, 350), "backup": (60, 300)}
"""Commands, with the most seconds and MB of memory that each may take at 2,000 runs."""
_THREADS = 8
_LONGEST_S = 900
_PEAK_EVERY_S = 0.02
_RUNS = path(NAMESPACE, "rayjobs")


@dataclass(frozen=True)
class Cost:
    """Of one command: wall time, its own CPU time, largest resident set, and what it said."""

    seconds: float
    cpu_s: float
    peak_mb: float
    said: str


@dataclass(frozen=True)
class Step:
    """What was measured at one size."""

    runs: int
    nodes: int
    started_s: float
    """Until the operator had the Ray clusters of this step's runs up."""
    clusters: int
    """How many these were."""
    costs: dict[str, Cost]


class Crowd:
    """Nodes and runs, more and more of them."""

    def __init__(self, server: ApiServer, kube: Kube, charts: Helm) -> None:
        self._kube, self._storage = kube, Storage(STORAGE)
        self._operator = server.processes["kuberay-operator"]
        values = {"config": "train: {epochs: 1}\n", "workers": {"training": {"min": 1, "max": 1}}}
        self._job = only(charts.render("ray-job", values, "values-kind.yaml"), "RayJob")
        self._first = datetime.now(UTC) - timedelta(days=7)
        self.runs = self.nodes = 0

    def grow(self, runs: int) -> tuple[float, int]:
        """Have so many runs, and half as many nodes. Returns how long the operator took for the new Ray clusters, and
        how many these are."""
        with ThreadPoolExecutor(_THREADS) as pool:
            nodes = [kwok.node(f"crowd-{number}") for number in range(self.nodes, round(runs * NODES_PER_RUN))]
            list(pool.map(lambda body: self._kube.ask("POST", kwok.NODES, body), nodes))
            with self.operator_stopped():  # it would start the runs that are made as ended
                list(pool.map(self._add_ended, (n for n in range(self.runs, runs) if n % UNDER_WAY)))
            begun = time.monotonic()
            fresh = list(pool.map(self._add_starting, (n for n in range(self.runs, runs) if not n % UNDER_WAY)))
            for name in fresh:
                made = path(NAMESPACE, "rayclusters", selector=f"labelSelector=ray.io/originated-from-cr-name={name}")
                self._kube.wait(made, up, _LONGEST_S)
        self.runs, self.nodes = runs, self.nodes + len(nodes)
        return time.monotonic() - begun, len(fresh)

    @contextmanager
    def operator_stopped(self) -> Iterator[None]:
        """The operator stands still for as long as the block runs."""
        self._operator.freeze()
        try:
            yield
        finally:
            self._operator.thaw()

    def _run(self, number: int) -> Run:
        """A run with its directory, and events as it writes them."""
        at = self._first + timedelta(minutes=number)
        run = Run.create(self._storage, "train", "train: {epochs: 1}\n", at, random.Random(number))
        with EventLog(run) as log:
            for step in range(1, 6):
                log.append("metrics", step=step, steps=5, values={"loss": 2.0})
        return run

    def _add_ended(self, number: int) -> None:
        run = self._run(number)
        run.finish({"eval_perplexity": 20.0})
        self._kube.ask("POST", _RUNS, self._body(run.id))
        ended = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "startTime": stamp(), "endTime": stamp()}
        self._kube.ask("PATCH", path(NAMESPACE, "rayjobs", run.id) + "/status", {"status": ended}, Kube.MERGE)

    def _add_starting(self, number: int) -> str:
        run = self._run(number)
        self._kube.ask("POST", _RUNS, self._body(run.id))
        return run.id

    def _body(self, run_id: str) -> Object:
        job = deepcopy(self._job)
        job["metadata"] = {"name": run_id, "labels": job["metadata"]["labels"] | {"haetsal/run": run_id}}
        return job


def measure(server: ApiServer, kube: Kube, charts: Helm, sizes: Sequence[int], folder: Path) -> Iterator[Step]:
    """Grow to each size in turn, and run every command there, as a person does, with KUBECONFIG and AWS set."""
    crowd, dashboard = Crowd(server, kube, charts), Dashboard()
    rows = folder / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{n} 더하기 1은?", "completion": "{n + 1}"}}\n' for n in range(40)))
    operations = f"store.root=s3://haetsal/backups cluster.dashboard={{}} cluster.namespace={NAMESPACE}"
    with dashboard.serving():
        options = ["--set", operations.format(dashboard.url)]
        for size in sizes:
            started_s, clusters = crowd.grow(size)
            with crowd.operator_stopped():  # KWOK's heads answer no one, and asking each of them takes the CPU
                costs = {
                    "listing": _finished([sys.executable, "-m", "jobs.manage", "runs", "--profile", "kind"]),
                    "health check": _finished([sys.executable, "-m", "ops.health", *options], (10, 11)),
                    "backup": _finished([sys.executable, "-m", "ops.backup", *options]),
                    "submission": _submit(kube, rows),
                }
            yield Step(size, crowd.nodes, started_s, clusters, costs)


def _submit(kube: Kube, rows: Path) -> Cost:
    """From the command to its RayJob; then Ctrl-C, which detaches."""
    known = {item["metadata"]["name"] for item in kube.items(_RUNS)}

    def until_there(process: subprocess.Popen[str]) -> None:
        kube.wait(_RUNS, lambda it: it["metadata"]["name"] not in known, _LONGEST_S)
        process.send_signal(signal.SIGINT)

    command = [sys.executable, "-m", "jobs.submit", "train", "--profile", "kind", "--set", f"data.source={rows}"]
    return _finished(command, (130,), until_there)


def _finished(
    command: list[str], codes: tuple[int, ...] = (0,), act: Callable[[subprocess.Popen[str]], None] | None = None
) -> Cost:
    """What a command costs, which must end with one of these codes; time runs until `act` is done, if there is one."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True)
        peak = _Peak(process.pid)
        seconds = None
        if act:
            act(process)
            seconds = time.monotonic() - begun
        _, status, usage = os.wait4(process.pid, 0)
        seconds = seconds or time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read()
    assert process.returncode in codes, f"{command}: {process.returncode}\n{said[-2000:]}"
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak.mb(), said)


class _Peak:
    """Largest resident set of a process. The kernel keeps it until the program ends; what it tells of ended ones
    (ru_maxrss) begins with the size of whoever started them."""

    def __init__(self, pid: int) -> None:
        self._kb, self._status = 0, Path(f"/proc/{pid}/status")
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def mb(self) -> float:
        """When the process has ended."""
        self._thread.join()
        return self._kb / 1024

    def _follow(self) -> None:
        while True:
            try:
                found = re.search(r"VmHWM:\s+(\d+)", self._status.read_text())
            except OSError:
                return
            if found is None:  # it has ended, and nobody has asked how yet
                return
            self._kb = int(found[1])
            threading.Event().wait(_PEAK_EVERY_S)
