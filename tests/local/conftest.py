"""Real services for the tests in this folder."""

import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import boto3
import pytest
import tiny
import torch
from commands import Command, conversations, mount
from moto.server import ThreadedMotoServer
from rows import jsonl


@pytest.fixture(scope="session")
def _moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_server(_moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Root (`s3://…`) of a fresh bucket on a server that speaks the S3 protocol; environment variables point at it."""
    for name, value in {
        "AWS_ENDPOINT_URL": _moto,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    bucket = f"haetsal-{abs(hash(str(tmp_path))):x}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/platform"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama of two layers with random weights and its tokenizer, for `model.source`."""
    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(7)
    tokenizer = tiny.tokenizer()
    tiny.model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """49 conversations of different lengths, of which 40 are trained on with `data.held_out=0.2`."""
    return jsonl(tmp_path_factory.mktemp("tiny-data") / "rows.jsonl", *conversations(49))


@pytest.fixture
def command(tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs commands in this process, on the tiny model unless told otherwise, and says how they ended."""
    return Command(tiny_model, tiny_data, monkeypatch)


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow process beside the run: it costs ten seconds of CPU, and test_train.py has one that is looked at."""
    monkeypatch.setattr("jobs.training.loop.Tracker", lambda *_: nullcontext())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
