"""versions.yaml is the one place: its readers agree with it."""

import tomllib

from images import build
from terraform.platform import registry
from terraform.versions import ROOT


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[str]:
    return [r for group in pyproject()["project"]["optional-dependencies"].values() for r in group]


def test_ray_is_the_same_in_charts_and_python(versions):
    pinned = {r.split("==")[1] for r in requirements() if r.startswith("ray[") and "==" in r}
    assert pinned == {versions.ray}


def test_mlflow_server_is_the_clients_release(versions):
    (client,) = {r.split("==")[1] for r in requirements() if r.startswith("mlflow==")}
    assert versions.images["mlflow"].endswith(f":v{client}-full")


def test_python_is_the_projects(versions):
    assert pyproject()["project"]["requires-python"] == f"=={versions.python}.*"
    assert versions.images["python"].rpartition(":")[2].startswith(f"{versions.python}-")


def test_kubernetes_minor_version_is_the_same_everywhere(versions):
    assert versions.eks.ami_release.startswith(f"{versions.kubernetes}.")
    assert versions.eks.addons["kube-proxy"].startswith(f"v{versions.kubernetes}.")


def test_no_image_or_chart_moves(versions):
    for reference in versions.images.values():
        assert reference.rsplit(":", 1)[1] not in ("latest", "nightly", "stable")
    for chart in versions.charts.values():
        assert chart.version.lstrip("v")[0].isdigit()


def test_every_entry_says_who_reads_it():
    lines = (ROOT / "versions.yaml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith((" ", "#")):
            assert "  # " in line or lines[number - 1].startswith("#"), line


def test_the_registry_has_a_place_for_every_image():
    assert set(build.IMAGES) <= set(registry.IMAGES)
