"""One API server for all tests in this folder, and S3 beside it."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import api_server
import boto3
import pytest
import yaml
from api_server import ApiServer
from cluster_side import Kubelet, Operator, kubelet
from kubernetes.client import ApiClient
from moto.server import ThreadedMotoServer

from jobs import cli
from jobs.cluster import attach, profile
from jobs.cluster.helm import CHART, Helm
from jobs.errors import EnvironmentNotReady

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if absent := api_server.missing():
        pytest.skip(absent)
    with api_server.serve(tmp_path_factory.mktemp("api-server")) as running:
        api_server.prepare(running)
        yield running


@pytest.fixture(scope="session")
def api(server: ApiServer) -> ApiClient:
    return server.api


@pytest.fixture
def operator(api: ApiClient) -> Operator:
    return Operator(api)


@pytest.fixture(scope="session")
def _moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def place(server: ApiServer, _moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Root of a fresh bucket; PROFILE=kind means the API server and this bucket."""
    for name, value in {
        "KUBECONFIG": str(server.kubeconfig()),
        "AWS_ENDPOINT_URL": _moto,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONWARNINGS": "ignore",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    bucket = f"haetsal-{abs(hash(str(tmp_path))):x}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    root = f"s3://{bucket}/artifacts"
    folder = tmp_path / "profiles"
    shutil.copytree(profile.PROFILES, folder)
    monkeypatch.setattr(profile, "PROFILES", folder)
    change_profile(folder, storage_root=root, operator_deadline_s=2, start_deadline_s=60)
    return root


def change_profile(folder: Path, **values: object) -> None:
    """Write other values into the kind profile."""
    path = folder / "kind.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


@pytest.fixture
def profiles(place: str) -> Path:
    """Folder of the profiles."""
    return profile.PROFILES


@pytest.fixture
def helm(place: str) -> Helm:
    if not CHART.is_dir():
        pytest.skip("charts/ray-job is not there")
    try:
        return Helm.find(profile.load("kind", "dev"))
    except EnvironmentNotReady as error:
        pytest.skip(str(error))


@pytest.fixture
def node(api: ApiClient, tmp_path: Path) -> Iterator[Kubelet]:
    with kubelet(api, tmp_path) as served:
        yield served


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call a command as `make` does; returns exit code, what it printed, and its one error line."""

    def run(module, *arguments: str) -> tuple[int, str, str]:  # type: ignore[no-untyped-def]
        monkeypatch.setattr(sys, "argv", ["make", *arguments, "--profile", "kind"])
        with pytest.raises(SystemExit) as ended:
            cli.main(module.main)
        out, err = capfd.readouterr()
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in err
        assert len(errors) == (1 if ended.value.code else 0), err
        return int(ended.value.code or 0), out, errors[0] if errors else ""

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "{n} 더하기 1은?", "completion": "{n + 1}"}}\n' for n in range(40)))
    return path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Wait until the command has said a line with these words, so that it has come as far."""
    lines, changed, say = [], threading.Condition(), attach.say

    def listen(text: str) -> None:
        say(text)
        with changed:
            lines.append(text)
            changed.notify_all()

    def wait(words: str) -> None:
        with changed:
            assert changed.wait_for(lambda: any(words in line for line in lines), timeout=120), lines

    monkeypatch.setattr(attach, "say", listen)
    return wait
