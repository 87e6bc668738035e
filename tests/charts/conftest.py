"""Helm and the charts, rendered once for all tests."""

from pathlib import Path

import pytest

from terraform.versions import Versions, load_versions
from tests.charts.cases import CASES
from tests.charts.helm import CHARTS, Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory) -> Helm:
    return Helm.copied(tmp_path_factory.mktemp("helm") / "charts")


@pytest.fixture(scope="session")
def versions() -> Versions:
    return load_versions()


@pytest.fixture(params=CASES, scope="session")
def case(request, helm) -> list[dict]:
    """Objects of each case in turn."""
    chart, values, files = CASES[request.param]
    return helm.render(chart, values, *files)


@pytest.fixture(scope="session")
def everything(helm) -> list[dict]:
    """Objects of all cases together, each once."""
    found: dict[str, dict] = {}
    for chart, values, files in CASES.values():
        for entry in helm.render(chart, values, *files):
            found[str(entry)] = entry
    return list(found.values())


@pytest.fixture(scope="session")
def repository() -> Path:
    return CHARTS.parent
