"""One cluster for all tests in this folder, with the platform's chart on it where a test asks for that."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("submit", "ops")]  # their helpers are ours

import boto3
from api_server import NAMESPACE, ApiServer
from moto.server import ThreadedMotoServer

from jobs.errors import EnvironmentNotReady
from tests.charts.conftest import helm as charts
from tests.charts.helm import Helm
from tests.cluster import build, clusters, kwok
from tests.cluster.kube import Kube, Object
from tests.cluster.release import Release

__all__ = ["charts"]

_ON_LEAP_DAYS = {"schedule": "0 0 29 2 *"}
VALUES: Object = {
    "images": {"tag": "1.0.0"},
    "serving": {"enabled": False},
    "gateway": {"enabled": False},
    "operations": {"jobs": dict.fromkeys(("backup", "health", "drill", "retention"), _ON_LEAP_DAYS)},
}
"""Of the platform beside the tests: what they do not ask for stays off, and no CronJob fires by itself."""


def pytest_xdist_auto_num_workers() -> int:
    """Two control planes of our own halve the time; a cluster that is given is one, and the tests have it in turn."""
    return 2 if build.source(dict(os.environ)) == "processes" else 0


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The cluster; see `clusters.obtain`."""
    try:
        with clusters.obtain(tmp_path_factory.mktemp("control-plane")) as running:
            yield running
    except EnvironmentNotReady as error:
        pytest.exit(str(error), returncode=EnvironmentNotReady.exit_code)


@pytest.fixture(scope="session")
def kube(server: ApiServer) -> Kube:
    made = Kube(server.kubeconfig())
    kwok.add(made, *kwok.POOLS)
    return made


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """moto's server logs every request."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of an S3 server; this process' environment points at it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        boto3.client("s3").create_bucket(Bucket="haetsal")  # what values-kind.yaml and the profile `kind` name
        yield url
    server.stop()


@pytest.fixture(scope="session")
def platform(kube: Kube, charts: Helm) -> Release:
    """The platform in its namespace, whose Pod Security is "restricted"."""
    release = Release(kube, charts, "haetsal", NAMESPACE)
    release.make_namespace()
    release.upgrade(VALUES, "values-kind.yaml")
    return release
