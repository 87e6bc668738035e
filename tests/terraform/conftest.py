"""Environments synthesised once per session, and an AWS emulator behind a real HTTP port."""

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from terraform.bootstrap import bootstrap
from terraform.settings import ENVIRONMENTS, Environment, load_environment, load_kind
from terraform.state import state_bucket
from terraform.versions import ROOT, Prices, Versions, load_prices, load_versions
from tests.terraform.stacks import Stack

DATA = Path(__file__).parent / "data"
ACCOUNT = "123456789012"  # moto's
CANARY = "canary-41c7b2d0-must-not-be-written"


@pytest.fixture(scope="session")
def versions() -> Versions:
    return load_versions()


@pytest.fixture(scope="session")
def prices() -> Prices:
    return load_prices()


@pytest.fixture(scope="session")
def environments() -> dict[str, Environment]:
    """The repository's own environments and the tests' lab."""
    own = [path.stem for path in sorted(ENVIRONMENTS.glob("*.yaml")) if path.stem != "kind"]
    return {name: load_environment(name) for name in own} | {"lab": load_environment("lab", DATA)}


@pytest.fixture(scope="session")
def synthesised(environments, versions, prices) -> Iterator[Path]:
    """Folder with every environment's stacks. Secrets in the process environment must not reach the JSON."""
    from terraform.synth import synthesise, synthesise_kind

    secrets = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "TF_VAR_password", "HF_TOKEN"), CANARY)
    before = {name: os.environ.get(name) for name in secrets}
    os.environ.update(secrets)
    # Below the repository, as `make synth` does: the path to our own chart is relative to where Terraform runs.
    out = ROOT / ".haetsal" / "terraform" / f"test-{os.getpid()}"
    try:
        for name, environment in environments.items():
            synthesise(environment, versions, prices, out / name)
        synthesise_kind(load_kind(), versions, out / "kind")
        yield out
    finally:
        shutil.rmtree(out, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def stacks(synthesised) -> dict[tuple[str, str], Stack]:
    """(environment, stack) to its JSON."""
    found = [Stack.read(path.parts[-4], path) for path in sorted(synthesised.glob("*/stacks/*/cdk.tf.json"))]
    return {(stack.environment, stack.name): stack for stack in found}


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_url, monkeypatch) -> str:
    """An empty account behind AWS_ENDPOINT_URL, for this process and for programs it starts."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-2")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")

    reset = urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    return moto_url


@pytest.fixture
def dev(tmp_path) -> Environment:
    """dev.yaml with the emulator's account."""
    return with_account(tmp_path, "dev")


def with_account(folder: Path, name: str) -> Environment:
    text = (ENVIRONMENTS / f"{name}.yaml").read_text(encoding="utf-8").replace("000000000000", ACCOUNT)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_environment(name, folder)


@pytest.fixture
def session(aws, dev) -> boto3.Session:
    return boto3.Session(region_name=dev.region)


@pytest.fixture
def lab(environments, aws) -> Environment:
    """The tests' environment, whose account is the emulator's."""
    return environments["lab"]


@pytest.fixture
def lab_session(lab) -> boto3.Session:
    return boto3.Session(region_name=lab.region)


@pytest.fixture
def state(lab, lab_session, monkeypatch) -> str:
    """The lab's state bucket in the emulator, usable by the real binary."""
    bootstrap(lab, lab_session)
    # moto applies a Deny without looking at its condition (TLS only), and has no host name per bucket.
    lab_session.client("s3").delete_bucket_policy(Bucket=state_bucket(lab))
    monkeypatch.setenv("TF_CLI_ARGS_init", "-backend-config=use_path_style=true")
    monkeypatch.setenv("TF_IN_AUTOMATION", "1")
    return state_bucket(lab)


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """Write contexts, name to server, as the user's kubeconfig."""
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))

    def write(**servers: str) -> None:
        names = list(servers)
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": n, "cluster": {"server": servers[n]}} for n in names],
                    "contexts": [{"name": n, "context": {"cluster": n, "user": n}} for n in names],
                    "users": [{"name": n, "user": {}} for n in names],
                }
            )
        )

    write()
    return write
