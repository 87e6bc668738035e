"""Engines and gateways as processes of their own, on free ports, gone when the test is over."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

ENGINE = Path(__file__).with_name("engine.py")
ROOT = Path(__file__).parents[2]
START_S = 60
HTTP = httpx.Client(verify=False, timeout=30)
"""One for all: making a client reads all certificates of this machine, which takes longer than most tests."""


def free_port() -> int:
    """Below the range from which the kernel takes ports for connections, so that none of those is in the way later."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Process:
    """One server. `log` is what it wrote."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.popen.send_signal(how)

    def wait_until(self, path: str, status: int = 200) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if HTTP.get(self.url + path).status_code == status:
                    return
            assert self.popen.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{path} never said {status}: {self.log.read_text()}")


@contextlib.contextmanager
def running(arguments: list[str], port: int, log: Path, path: str) -> Iterator[Process]:
    with log.open("ab") as out:
        popen = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=out, env=os.environ)
    process = Process(popen, port, log)
    try:
        if path:
            process.wait_until(path)
        yield process
    finally:
        popen.send_signal(signal.SIGCONT)
        popen.kill()
        popen.wait()


@contextlib.contextmanager
def engine(folder: Path, name: str = "engine", port: int = 0, wait: bool = True) -> Iterator[Process]:
    port = port or free_port()
    with running([str(ENGINE), str(port), name], port, folder / f"{name}.log", "/health" if wait else "") as process:
        yield process


@contextlib.contextmanager
def gateway(folder: Path, config: dict[str, Any], ready: str = "/readyz", name: str = "gateway") -> Iterator[Process]:
    port = free_port()
    file = folder / f"{name}.yaml"
    write(file, config)
    command = ["-m", "jobs.serving.gateway", "--config", str(file), "--port", str(port)]
    with running(command, port, folder / f"{name}.log", ready) as process:
        yield process


def write(file: Path, config: dict[str, Any]) -> None:
    """As an editor or a ConfigMap does: the new file is there whole, at once."""
    fresh = file.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(config), encoding="utf-8")
    fresh.replace(file)


def metric(gateway: Process, name: str, **labels: str) -> float:
    """The sum of all series of a metric that have these labels."""
    total = 0.0
    for line in HTTP.get(f"{gateway.url}/metrics").text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == f"haetsal_gateway_{name}" and all(
            f'{key}="{wanted}"' in series for key, wanted in labels.items()
        ):
            total += float(value)
    return total
