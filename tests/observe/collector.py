"""A real OpenTelemetry collector, built once with Go from the modules of collector.yaml into a cache outside the tree.

python -m tests.observe.collector      # needs Go and its module proxy; some minutes
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.cli import main
from jobs.errors import EnvironmentNotReady
from tests.gateway.processes import free_port
from tests.observe.plant import wait_for

MANIFEST = Path(__file__).with_suffix(".yaml")
NAME = "otelcorecol"


def program() -> str | None:
    """On PATH, or the one that was built."""
    built = _cache() / NAME
    return shutil.which(NAME) or (str(built) if built.is_file() else None)


def _cache() -> Path:
    version = re.search(r"otlpreceiver v(\S+?)\}", MANIFEST.read_text(encoding="utf-8"))
    assert version
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "haetsal" / f"collector-{version[1]}"


def build() -> None:
    """Build it if it is not there. Raises EnvironmentNotReady."""
    if program():
        return
    go = shutil.which("go")
    if go is None:
        raise EnvironmentNotReady("go is not installed; the collector is built with it")
    version = _cache().name.removeprefix("collector-")
    with tempfile.TemporaryDirectory() as scratch:
        environ = os.environ | {"GOBIN": scratch}
        builder = ["go", "install", f"go.opentelemetry.io/collector/cmd/builder@v{version}"]
        make = [f"{scratch}/builder", "--config", str(MANIFEST), f"--output-path={scratch}/made"]
        for command in (builder, make):
            if subprocess.run(command, env=environ, cwd=scratch).returncode:
                raise EnvironmentNotReady(f"{command[0]}: failed; its own words are above")
        _cache().mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{scratch}/made/{NAME}", _cache() / NAME)


@dataclass(frozen=True)
class Collected:
    """One span as the collector has printed it."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    text: str


@dataclass(frozen=True)
class Collector:
    """At work."""

    endpoint: str
    log: Path

    def spans(self) -> list[Collected]:
        """All until now."""
        found = []
        service = ""
        for block in re.split(r"(?=ResourceSpans #|Span #)", self.log.read_text(encoding="utf-8")):
            if named := re.search(r"service\.name: Str\((\S+)\)", block):
                service = named[1]
            fields = dict(re.findall(r"^ {4}(Trace ID|Parent ID|ID|Name) *: ?(\S*)", block, re.MULTILINE))
            if block.startswith("Span #"):
                found.append(
                    Collected(service, fields["Name"], fields["Trace ID"], fields["ID"], fields["Parent ID"], block)
                )
        return found


@contextlib.contextmanager
def collecting(folder: Path) -> Iterator[Collector]:
    """The collector on a free port of this machine, printing what it gets."""
    binary = program()
    assert binary
    port, log, file = free_port(), folder / "collector.log", folder / "collector.json"
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"debug": {"verbosity": "detailed", "use_internal_logger": False}},
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    file.write_text(json.dumps(config))
    with log.open("wb") as out:
        process = subprocess.Popen([binary, f"--config={file}"], stdout=out, stderr=out)
    try:
        wait_for(lambda: process.poll() is None and "Everything is ready" in log.read_text(), "the collector")
        yield Collector(f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.argv[0] = "collector"
    main(build)
