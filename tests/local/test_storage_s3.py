"""Storage, runs, locks and events against a server that speaks the S3 protocol."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
import requests

from jobs.errors import IntegrityError, RemoteError
from jobs.run_owner import read_owner
from jobs.runs import EventLog, Run, RunBusy, latest, read_events
from jobs.storage import AlreadyExists, NotFound, Storage, StorageError


@pytest.fixture
def storage(s3_server: str) -> Storage:
    return Storage(s3_server)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter.safetensors").write_bytes(b"weights" * 1000)
    (folder / "sub" / "tokenizer.json").write_text("{}")
    return folder


def test_files_are_written_read_listed_and_deleted(storage: Storage) -> None:
    storage.check_writable()
    assert storage.list() == []
    storage.write("a/b.txt", b"old")
    storage.write("a/b.txt", b"new")
    storage.write("a/c/d.txt", b"")

    assert storage.read("a/b.txt") == b"new"
    assert storage.list("a") == ["b.txt", "c"]
    assert storage.exists("a/c")
    storage.delete_tree("a")
    storage.delete_tree("a")
    assert not storage.exists("a/b.txt")
    with pytest.raises(NotFound, match=r"b\.txt"):
        storage.read("a/b.txt")


def test_one_of_many_racing_creators_wins(storage: Storage) -> None:
    def create(number: int) -> bool:
        try:
            Storage(storage.root).create("once", str(number).encode())
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))

    assert won.count(True) == 1
    assert storage.read("once") == str(won.index(True)).encode()


def test_published_tree_comes_back_and_replaces_the_old_one(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.publish_tree(model, "model")
    (model / "adapter.safetensors").rename(model / "renamed.safetensors")
    storage.publish_tree(model, "model")
    storage.fetch_tree("model", tmp_path / "copy")

    assert storage.list("model") == ["manifest.json", "renamed.safetensors", "sub"]
    assert (tmp_path / "copy" / "sub" / "tokenizer.json").read_text() == "{}"


def test_tree_is_not_there_until_its_manifest_is(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.publish_tree(model, "model")
    storage.filesystem.rm(storage.address("model/manifest.json"))  # what an interrupted upload leaves

    with pytest.raises(NotFound, match="never completed"):
        storage.fetch_tree("model", tmp_path / "copy")


def test_damaged_tree_is_refused(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.publish_tree(model, "model")
    storage.write("model/adapter.safetensors", b"Weights" * 1000)

    with pytest.raises(IntegrityError, match=r"adapter\.safetensors: content does not match"):
        storage.fetch_tree("model", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_run_goes_its_whole_way(storage: Storage) -> None:
    run = Run.create(storage, "train", "seed: 1\n")
    with run.lock(), EventLog(run) as log:
        log.append("phase", name="load", seconds=1.5)
        assert read_events(run) == []
        log.publish()
        assert [event.kind for event in read_events(run)] == ["phase"]
        log.append("metrics", step=1, values={"loss": 2.0})
    run.finish({"perplexity": 3.5})

    assert [event.seq for event in read_events(Run.open(storage, latest(storage, "train")))] == [1, 2]
    assert storage.list(run.path()) == ["config.yaml", "events.jsonl", "owner.json", "result.json"]
    assert not log.path.exists()


_CRASH = """
import os, signal, sys
from jobs.run_owner import read_owner
from jobs.runs import EventLog, Run
from jobs.storage import Storage

run = Run(Storage(sys.argv[1]), sys.argv[2])
with run.lock():
    log = EventLog(run)
    log.append("published")
    log.publish()
    log.append("spooled")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_owner_is_replaced_and_its_spooled_events_survive(storage: Storage) -> None:
    run = Run.create(storage, "train", "")
    killed = subprocess.run([sys.executable, "-c", _CRASH, storage.root, run.id], check=False)
    assert killed.returncode == -9
    assert storage.exists(run.path("owner.json"))
    assert [event.kind for event in read_events(run)] == ["published"]

    with run.lock(), EventLog(run) as log:
        log.append("resumed")

    assert [event.kind for event in read_events(run)] == ["published", "spooled", "resumed"]
    owner = read_owner(storage, run.path())
    assert owner and owner.attempt == 2 and not owner.held


def test_spool_gives_way_to_what_another_machine_published(storage: Storage) -> None:
    run = Run.create(storage, "train", "")
    EventLog(run).append("never published, its machine lost the run")
    storage.write(run.path("events.jsonl"), b'{"seq": 1, "time_unix_s": 1.0, "kind": "elsewhere"}\n')

    with EventLog(run) as log:
        log.append("back")

    assert [event.kind for event in read_events(run)] == ["elsewhere", "back"]


def test_owner_on_another_machine_is_respected(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(storage, "train", "")
    with run.lock():
        with pytest.raises(RunBusy, match="is working on this run"), run.lock():
            pass  # the same machine: its lock file says so
        # Another cache folder is to us what another machine is: its lock files cannot be seen.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
        with pytest.raises(RunBusy, match=r"process \d+ on .*TAKE_OVER=1"), run.lock():
            pass


def test_missing_bucket_is_named(s3_server: str) -> None:
    storage = Storage("s3://no-such-bucket/x")

    for use in (storage.check_writable, lambda: storage.read("a"), storage.list):
        with pytest.raises(StorageError, match="there is no bucket no-such-bucket"):
            use()


def test_missing_credentials_are_named(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    with pytest.raises(StorageError, match=r"no usable AWS credentials .*set AWS_ACCESS_KEY_ID"):
        Storage(s3_server).check_writable()


def test_unreachable_endpoint_is_named(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the discard port: nothing listens there

    with pytest.raises(RemoteError, match=r"S3 does not answer .*check AWS_ENDPOINT_URL"):
        Storage(s3_server).check_writable()


def test_refused_credentials_are_named(_moto: str, s3_server: str) -> None:
    # From now on the server checks keys, and refuses those that it did not issue.
    requests.post(f"{_moto}/moto-api/reset-auth", data="0", timeout=5).raise_for_status()
    try:
        with pytest.raises(StorageError, match="S3 refuses the AWS credentials"):
            Storage(s3_server).check_writable()
    finally:
        requests.post(f"{_moto}/moto-api/reset-auth", data="inf", timeout=5).raise_for_status()
    assert boto3.client("s3").list_buckets()["Buckets"]
