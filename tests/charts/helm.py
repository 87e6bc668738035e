"""Charts rendered by the real helm, once per set of values."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
RUN = "train-20261122-101500-3fa9"
RELEASE = {"haetsal": "haetsal", "ray-job": RUN}
Object = dict


class Refused(Exception):
    """Helm did not render; the text is what it told the user."""


def find_helm() -> str:
    beside = Path(sys.executable).parent / "helm"
    helm = str(beside) if beside.exists() else shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not installed; `make setup` unpacks it")
    return helm


@dataclass
class Helm:
    """Helm over a copy of the charts whose dependencies are built. `seconds` holds what each render took."""

    binary: str
    charts: Path
    seconds: list[float] = field(default_factory=list)
    _seen: dict[str, list[Object]] = field(default_factory=dict)

    @classmethod
    def copied(cls, folder: Path) -> "Helm":
        """Over a copy in `folder`: a dependency built in the checkout could be older than the library beside it."""
        shutil.copytree(CHARTS, folder, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
        made = cls(find_helm(), folder)
        for chart in ("haetsal", "ray-job"):
            done = made.run("dependency", "update", "--skip-refresh", str(folder / chart))
            assert done.returncode == 0, done.stderr
        return made

    def render(self, chart: str, values: dict | None = None, *files: str, release: str | None = None) -> list[Object]:
        """Objects of a chart; `files` are values files in its folder. Raises Refused."""
        key = json.dumps([chart, values, files, release])
        if key not in self._seen:
            text = self.text(chart, values, *files, release=release)
            self._seen[key] = [entry for entry in yaml.load_all(text, Loader=yaml.CSafeLoader) if entry]
        return self._seen[key]

    def text(self, chart: str, values: dict | None = None, *files: str, release: str | None = None) -> str:
        folder = self.charts / chart
        options = [option for file in files for option in ("--values", str(folder / file))]
        name = release or RELEASE[chart]
        begun = time.monotonic()
        done = self.run(
            "template", name, str(folder), "--namespace", "haetsal", "--values", "-", *options, values=values
        )
        self.seconds.append(time.monotonic() - begun)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def run(self, *arguments: str, values: dict | None = None) -> subprocess.CompletedProcess[str]:
        """Any command of helm; `values` are what `--values -` reads."""
        return subprocess.run(
            [self.binary, *arguments],
            input=yaml.safe_dump(values or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = (o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"]))
    return found


def names(objects: list[Object], kind: str) -> set[str]:
    return {o["metadata"]["name"] for o in objects if o["kind"] == kind}


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template, wherever in an object it is, with a name for messages."""
    for entry in objects:
        yield from _pods(entry, f"{entry['kind']}/{entry['metadata']['name']}")


def _pods(node: object, where: str) -> Iterator[tuple[str, Object]]:
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
            yield where, node
        for key, value in node.items():
            yield from _pods(value, f"{where}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _pods(value, f"{where}[{number}]")


def ray_clusters(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every RayClusterSpec, its own or inside a RayJob or RayService."""
    for entry in objects:
        spec = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
        if entry["kind"] in spec:
            inner = spec[entry["kind"]]
            cluster = entry["spec"].get(inner) if inner else entry["spec"]
            if cluster:
                yield f"{entry['kind']}/{entry['metadata']['name']}", cluster
