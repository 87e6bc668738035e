"""What commands cost on a cluster of 1,000 nodes and 2,000 runs: a real control plane, KubeRay's operator, KWOK.

    python -m tests.bench.cluster scale [--runs 250 500 1000 2000]

Needs what `make test-cluster` needs, and half an hour. One run in ten has a Ray cluster, the others have ended; there
are half as many nodes as runs. Prints the README's table and whether the bars are met.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / folder) for folder in ("submit", "ops", "unit")]

import boto3  # noqa: E402
import urllib3  # noqa: E402
from api_server import NAMESPACE  # noqa: E402
from processes import Process, free_ports  # noqa: E402

from jobs import cli  # noqa: E402
from tests.charts.helm import Helm  # noqa: E402
from tests.cluster import control_plane, kwok  # noqa: E402
from tests.cluster.kube import Kube  # noqa: E402
from tests.cluster.release import Release  # noqa: E402
from tests.cluster.scale import BARS, Step, measure  # noqa: E402

SIZES = (250, 500, 1000, 2000)
_LEASE_S = 40
"""As on a real cluster: a thousand nodes that say every second that they are there would be most of the load."""


def table(steps: Sequence[Step]) -> str:
    """Markdown: seconds, CPU seconds and peak memory of each command at each size."""
    names = list(BARS)
    lines = [
        "| runs (new Ray clusters) | nodes | " + " | ".join(names) + " | operator, per new Ray cluster |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for step in steps:
        costs = (step.costs[name] for name in names)
        cells = [f"{cost.seconds:.1f} s ({cost.cpu_s:.1f} s CPU, {cost.peak_mb:.0f} MB)" for cost in costs]
        cells = [
            f"{step.runs:,} ({step.clusters})",
            f"{step.nodes:,}",
            *cells,
            f"{step.started_s / step.clusters:.2f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(steps: Sequence[Step]) -> Iterator[tuple[str, bool]]:
    """Each command at the largest size against its bar; and its growth: CPU time per further run over the last half of
    the sizes beside the first half, which a quadratic cost would double."""
    last = steps[-1]
    for name, (most_s, most_mb) in BARS.items():
        cost = last.costs[name]
        met = cost.seconds <= most_s and cost.peak_mb <= most_mb
        yield f"{name}: {cost.seconds:.1f} s (≤ {most_s} s), {cost.peak_mb:.0f} MB (≤ {most_mb} MB)", met
    if len(steps) < 3:
        return
    for name in BARS:
        slopes = [
            (after.costs[name].cpu_s - before.costs[name].cpu_s) / (after.runs - before.runs) * 1000
            for before, after in ((steps[0], steps[-2]), (steps[-2], last))
        ]
        text = f"{name}: {slopes[0]:.2f}, then {slopes[1]:.2f} s of CPU per 1,000 further runs"
        yield text, slopes[1] <= max(1.5 * slopes[0], 0.5)


def scale(sizes: Sequence[int]) -> bool:
    """Measure and print; whether every bar is met."""
    with _control_plane() as (server, kube, charts, folder):
        steps = []
        for step in measure(server, kube, charts, sizes, folder):
            steps.append(step)
            print(table([step]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(steps), end="\n\n")
    met = True
    for text, good in verdicts(steps):
        print(f"{'met   ' if good else 'MISSED'} {text}")
        met &= good
    return met


@contextmanager
def _control_plane() -> Iterator[tuple[control_plane.ApiServer, Kube, Helm, Path]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haetsal-bench-")))
        server = stack.enter_context(control_plane.run(folder, _LEASE_S))
        kube = Kube(server.kubeconfig())
        kwok.add(kube, *kwok.POOLS)
        os.environ |= {
            "KUBECONFIG": str(kube.path),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        (port,) = free_ports(1)
        s3 = Process([sys.executable, "-m", "moto.server", "--host=127.0.0.1", f"--port={port}"], folder / "s3.log")
        stack.callback(s3.kill)
        s3.start()
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        urllib3.request("GET", os.environ["AWS_ENDPOINT_URL"], retries=urllib3.Retry(connect=100, backoff_factor=0.1))
        boto3.client("s3").create_bucket(Bucket="haetsal")
        charts = Helm.copied(folder / "charts")
        platform = Release(kube, charts, "haetsal", NAMESPACE)
        platform.make_namespace()
        platform.upgrade({"images": {"tag": "1.0.0"}}, "values-kind.yaml")
        yield server, kube, charts, folder


def main() -> None:
    """Command line entry; see the module's docstring. Exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scale"])
    parser.add_argument("--runs", nargs="+", type=int, default=SIZES, help="sizes, in growing order")
    options = parser.parse_args()
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    sys.exit(not scale(options.runs))


if __name__ == "__main__":
    cli.main(main)
