"""What a run directory survives: kill -9, a full disk, a read-only disk, and two processes that want the same."""

import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commands import mount

from jobs.runs import EventLog, Run, RunBusy, read_events, run_ids
from jobs.storage import AlreadyExists, NotFound, Storage, StorageError

MIB = 2**20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(4):
        (folder / f"part-{number}.safetensors").write_bytes(bytes([number]) * (MIB // 2))
    return folder


_KILLED_PUBLISHER = """
import os, signal, sys
from pathlib import Path
import jobs.storage as storage

def die_at_call(function, number):
    calls = 0
    def wrapper(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

root, source, where = sys.argv[1:]
if where == "third file":
    storage._copy_to_disk = die_at_call(storage._copy_to_disk, 3)
elif where == "local manifest":
    storage._write_local = die_at_call(storage._write_local, 1)
elif where == "old moved aside":
    Path.rename = die_at_call(Path.rename, 2)
elif where == "s3 manifest":
    storage.Storage.write = die_at_call(storage.Storage.write, 1)
storage.Storage(root).publish_tree(Path(source), "runs/r/model")
"""


def publish_and_die(root: str, source: Path, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED_PUBLISHER, root, str(source), where], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["third file", "local manifest"])
def test_publisher_killed_on_a_disk_leaves_nothing_visible(tmp_path: Path, model: Path, where: str) -> None:
    storage = Storage(str(tmp_path / "root"))

    publish_and_die(storage.root, model, where)

    assert list(storage.local_path("runs/r").rglob("*.safetensors")), "it was killed before it wrote anything"
    assert storage.list("runs/r") == []
    with pytest.raises(NotFound):
        storage.fetch_tree("runs/r/model", tmp_path / "copy")
    storage.remove_leftovers("runs/r")
    assert list(storage.local_path("runs/r").iterdir()) == []


def test_publisher_killed_while_replacing_leaves_no_mixture(tmp_path: Path, model: Path) -> None:
    storage = Storage(str(tmp_path / "root"))
    storage.publish_tree(model, "runs/r/model")

    publish_and_die(storage.root, model, "third file")
    storage.fetch_tree("runs/r/model", tmp_path / "old")  # the old one, untouched
    publish_and_die(storage.root, model, "old moved aside")

    assert not storage.exists("runs/r/model")
    storage.publish_tree(model, "runs/r/model")
    storage.fetch_tree("runs/r/model", tmp_path / "new")


def test_publisher_killed_on_s3_leaves_nothing_that_counts(s3_server: str, tmp_path: Path, model: Path) -> None:
    storage = Storage(s3_server)

    publish_and_die(storage.root, model, "s3 manifest")

    assert len(storage.list("runs/r/model")) == 4, "it was killed before it wrote the data"
    with pytest.raises(NotFound, match="never completed"):
        storage.fetch_tree("runs/r/model", tmp_path / "copy")


def test_full_disk_says_how_much_is_needed_and_keeps_the_old(small_disk: Path, model: Path) -> None:
    storage = Storage(str(small_disk))
    storage.write("file", b"old")

    with pytest.raises(
        StorageError, match=r"file: cannot write: the disk is full; needs 2,097,152 bytes, [\d,]+ bytes"
    ):
        storage.write("file", b"x" * 2 * MIB)
    with pytest.raises(StorageError, match=r"model: cannot publish: the disk is full; needs 2,097,152 bytes"):
        storage.publish_tree(model, "model")

    assert storage.read("file") == b"old"
    assert [path.name for path in small_disk.iterdir()] == ["file"]


def test_copy_to_a_full_disk_names_that_disk(s3_server: str, small_disk: Path, model: Path) -> None:
    storage = Storage(s3_server)
    storage.publish_tree(model, "model")

    with pytest.raises(StorageError, match=rf"{small_disk}.*: cannot write: the disk is full; needs 2,097,152 bytes"):
        storage.fetch_tree("model", small_disk / "copy")
    assert list(small_disk.iterdir()) == []


def test_event_that_does_not_fit_leaves_no_part_of_itself(small_disk: Path) -> None:
    run = Run.create(Storage(str(small_disk)), "train", "")
    with EventLog(run) as log:
        log.append("first")
        (small_disk / "ballast").write_bytes(b"x" * (MIB - 64 * 1024))
        with pytest.raises(StorageError, match="the disk is full"):
            log.append("too large", text="x" * 128 * 1024)
        assert log.path.read_bytes().endswith(b"}\n")
        (small_disk / "ballast").unlink()
        log.append("second")

    assert [(event.seq, event.kind) for event in read_events(run)] == [(1, "first"), (2, "second")]


def test_read_only_disk_is_named(small_disk: Path) -> None:
    storage = Storage(str(small_disk))
    storage.check_writable()
    mount("-o", "remount,ro", str(small_disk))

    with pytest.raises(StorageError, match=rf"{small_disk}: cannot write: read-only file system"):
        storage.check_writable()
    with pytest.raises(StorageError, match="read-only file system"):
        Run.create(storage, "train", "")


def test_racing_creators_get_runs_of_their_own(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    def create(number: int) -> str:
        # The same seed: all draw the same ids in the same order, so all but one collide each time.
        return Run.create(Storage(str(tmp_path)), "train", f"number: {number}\n", now, random.Random(0)).id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(create, range(8)))

    assert sorted(ids) == run_ids(Storage(str(tmp_path)))
    assert len(set(ids)) == 8
    assert [Run(Storage(str(tmp_path)), run_id).config() for run_id in ids] == [f"number: {n}\n" for n in range(8)]


def test_one_of_many_racing_creators_wins(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))

    def create(number: int) -> bool:
        try:
            storage.create("once", str(number).encode())
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(64)))

    assert won.count(True) == 1
    assert storage.read("once") == str(won.index(True)).encode()


_HOLDER = """
import sys
from jobs.runs import Run
from jobs.storage import Storage

with Run(Storage(sys.argv[1]), sys.argv[2]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Run], subprocess.Popen[str]]]:
    """Start a process that takes a run's lock and keeps it."""
    started: list[subprocess.Popen[str]] = []

    def start(run: Run) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _HOLDER, run.storage.root, run.id]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_locked_run_names_its_holder_and_is_free_once_that_is_killed(
    tmp_path: Path, hold: Callable[[Run], subprocess.Popen[str]]
) -> None:
    run = Run.create(Storage(str(tmp_path)), "train", "")
    other = Run.create(Storage(str(tmp_path)), "train", "")
    holder = hold(run)

    with pytest.raises(RunBusy, match=re.escape(f"{run.address()}: process {holder.pid} on ")), run.lock():
        pass
    with other.lock():
        pass  # another run is not disturbed
    holder.kill()
    holder.wait()
    with run.lock():
        pass


def test_lock_clears_what_a_killed_holder_left(tmp_path: Path, model: Path) -> None:
    storage = Storage(str(tmp_path / "root"))
    run = Run.create(storage, "train", "")
    publish_and_die(storage.root, model, "third file")
    shutil.move(next(storage.local_path("runs/r").iterdir()), run.address())
    assert list(Path(run.address()).rglob("*.safetensors"))

    with run.lock():
        assert list(Path(run.address()).rglob("*.safetensors")) == []
        assert storage.list(run.path()) == [".lock", "config.yaml"]
