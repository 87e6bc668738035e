"""Commands on many runs. How they grow up to 2,000 runs and 1,000 nodes: `python -m tests.bench.cluster scale`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import NAMESPACE, ApiServer

from tests.charts.helm import Helm
from tests.cluster import kwok
from tests.cluster.kube import Kube, path
from tests.cluster.scale import BARS, measure

RUNS = 50


@pytest.fixture
def empty_again(server: ApiServer, kube: Kube) -> Iterator[None]:
    """Nothing of the crowd stays for other tests."""
    if not server.processes:
        pytest.skip("a cluster that is not ours is not filled")
    yield
    kube.ask("DELETE", path(NAMESPACE, "rayjobs"))
    kube.wait_gone(path(NAMESPACE, "rayjobs"))
    kwok.remove(
        kube, *(name for node in kube.items(kwok.NODES) if (name := node["metadata"]["name"]).startswith("crowd"))
    )


@pytest.mark.long
@pytest.mark.usefixtures("platform", "s3", "empty_again")
def test_commands_see_every_run_within_their_bars(
    server: ApiServer, kube: Kube, charts: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (step,) = measure(server, kube, charts, [RUNS], tmp_path)
    said = {name: cost.said for name, cost in step.costs.items()}
    assert (step.runs, step.nodes, step.clusters) == (RUNS, RUNS // 2, RUNS // 10)
    assert f"and {RUNS - 30} older ones" in said["listing"]
    assert "cannot be seen" not in said["health check"]
    assert f"{RUNS} RayJob" in said["backup"]
    for name, (_, most_mb) in BARS.items():
        assert step.costs[name].peak_mb < most_mb, name
