"""Real services: an API server, S3, PostgreSQL; and a proxy that hurts."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import apiserver
import boto3
import postgres
import proxy
import pytest
import rayapi
from moto.server import ThreadedMotoServer
from platform_under_test import Platform, point_at

_numbers = itertools.count()


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apiserver.Kube]:
    with apiserver.serve(tmp_path_factory.mktemp("apiserver")) as kube:
        rayapi.install(kube, *(rayapi.crd(kind, spec) for kind, spec in rayapi.SPECS.items()))
        yield kube


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a place in a fresh bucket; the environment points at its server."""
    point_at(s3, monkeypatch)
    name = f"backups-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/haetsal"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    if postgres.find_programs() is None:
        pytest.skip("no PostgreSQL server (initdb, postgres) on this machine")
    with postgres.serve() as server:
        yield server


@pytest.fixture
def platform(kube: apiserver.Kube, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A namespace with a small platform in it, and the settings to back it up."""
    number = next(_numbers)
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
    return Platform.make(kube, f"haetsal-{number}", bucket, tmp_path)


@pytest.fixture
def bare(kube: apiserver.Kube, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The same with nothing in the namespace, for tests that never come so far."""
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
    return Platform.make(kube, "haetsal-bare", bucket, tmp_path, filled=False)


@pytest.fixture
def s3_proxy(bucket: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[proxy.Proxy]:
    """A proxy before S3, which the commands use."""
    with proxy.before(s3) as it:
        monkeypatch.setenv("AWS_ENDPOINT_URL", it.url)
        yield it


@pytest.fixture
def api_proxy(
    platform: Platform, kube: apiserver.Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[proxy.Proxy]:
    """A proxy before the API server, which the commands use."""
    with proxy.before(kube.url) as it:
        monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "proxied", it.url)))
        yield it


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """moto's server logs every request."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)


def pytest_report_header() -> str:
    """Which API server the tests of this folder run on."""
    found = apiserver.find_programs()
    return f"API server: {'real, ' + str(found[0]) if found else 'stand-in (no kube-apiserver and etcd found)'}"
