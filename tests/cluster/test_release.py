"""The charts' whole life on a real API server, with real controllers behind it."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ops.restore.fields import differences
from tests.charts.cases import CASES
from tests.charts.helm import ROOT, Helm
from tests.cluster.kube import Kube, Object, path
from tests.cluster.release import Release

# Beside the platform of the other tests: what is the cluster's and not the namespace's has another name, or is off.
SPARE = {
    "priorities": {"enabled": False},
    "operations": {"drillNamespace": "spare-drill"},
    "serving": {"enabled": True},
    "images": {"tag": "1.0.0"},
}


@pytest.fixture(scope="module")
def spare(kube: Kube, charts: Helm) -> Iterator[Release]:
    release = Release(kube, charts, "spare", "spare")
    release.make_namespace()
    yield release
    kube.ask("DELETE", "/api/v1/namespaces/spare")


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory, charts: Helm) -> Path:
    """The platform's chart as it was before its last change."""
    git = ["git", "-C", str(ROOT)]
    said = subprocess.run(
        [*git, "log", "-2", "--format=%H", "--", "charts"], capture_output=True, text=True, check=False
    )
    commits = said.stdout.split()
    if len(commits) < 2:
        pytest.skip("this checkout has no history of the charts")
    archive = subprocess.run([*git, "archive", commits[1], "charts"], capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    chart = folder / "charts" / "haetsal"
    shutil.rmtree(chart / "charts", ignore_errors=True)
    done = charts.run("dependency", "update", "--skip-refresh", str(chart))
    assert done.returncode == 0, done.stderr
    return chart


def test_upgrade_roll_back_uninstall(spare: Release, previous: Path) -> None:
    empty = spare.remains()
    said = spare.upgrade(SPARE, "values-kind.yaml", chart=previous)
    assert "violate PodSecurity" not in said
    token = spare.objects()["Secret/ray-token"]["data"]
    first = spare.objects()

    said = spare.upgrade(SPARE | {"images": {"tag": "1.0.1"}}, "values-kind.yaml")
    assert "violate PodSecurity" not in said
    upgraded = spare.objects()
    assert upgraded["Secret/ray-token"]["data"] == token, "a new token would lock running pods out"
    assert upgraded["RayCluster/spare"]["metadata"]["uid"] == first["RayCluster/spare"]["metadata"]["uid"]
    images = {line for line in yaml.safe_dump(list(upgraded.values())).splitlines() if "image: haetsal/" in line}
    assert images and all(line.endswith(":1.0.1") for line in images)

    versions = spare.versions()
    spare.upgrade(SPARE | {"images": {"tag": "1.0.1"}}, "values-kind.yaml")
    assert spare.versions() == versions, "a second install changes nothing"

    spare.run("rollback", spare.name, "1")
    back = spare.objects()
    assert back.keys() == first.keys()
    for name, item in first.items():
        changed = differences(_wanted(item), _wanted(back[name])) + differences(_wanted(back[name]), _wanted(item))
        assert not changed, (name, changed)
    assert back["Secret/ray-token"]["data"] == token

    spare.run("rollback", spare.name, "3")
    assert spare.objects().keys() == versions.keys()
    spare.run("uninstall", spare.name, "--wait")
    for kind in ("rayclusters", "pods", "services", "persistentvolumeclaims"):
        spare.kube.wait_gone(path(spare.namespace, kind), timeout_s=90)
    spare.kube.kubectl("wait", "--for=delete", "namespace/spare-drill", "--timeout=60s")
    assert spare.remains() == empty


def _wanted(item: Object) -> Object:
    """Its spec, but for the number of pods of a Deployment, which is the autoscaler's."""
    return {
        key: value for key, value in item.get("spec", {}).items() if (item["kind"], key) != ("Deployment", "replicas")
    }


@pytest.mark.parametrize("chart", ["haetsal", "ray-job"])
def test_server_takes_every_profile(kube: Kube, charts: Helm, platform: Release, chart: str) -> None:
    """Validation, defaults, the CRDs' rules and admission; nothing is stored."""
    for name, (which, values, files) in CASES.items():
        if which == chart:
            text = charts.text(chart, values, *files)
            done = kube.kubectl(
                "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
                stdin=text,
            )  # fmt: skip
            assert "Warning" not in done.stderr, (name, done.stderr)


def test_restricted_namespace_refuses_what_is_not(kube: Kube, platform: Release) -> None:
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "it", "image": "it"}]}}
    answer = kube.answer("POST", path(platform.namespace, "pods"), pod)
    assert answer.status == 403 and 'violates PodSecurity "restricted:latest"' in answer.message
