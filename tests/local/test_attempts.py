"""Attempts of one run on S3, as a cluster makes them: real processes that are killed, cut off, and come back.

Another cache folder is to a process what another machine is (see test_storage_s3.py).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import UsageError
from jobs.run_owner import Superseded, read_owner
from jobs.runs import EventLog, Run, last_end, read_events
from jobs.storage import Storage

_ATTEMPT = """
import sys
from pathlib import Path
from jobs.runs import EventLog, Run
from jobs.storage import Storage

run = Run.attempt(Storage(sys.argv[1]), sys.argv[2], "seed: 1\\n")
folder = Path(sys.argv[3])
with run.lock(), EventLog(run) as events:
    events.append("began", steps=run.storage.list(run.path("checkpoints")))
    for step in (1, 2):
        (folder / "weights").write_text(f"{sys.argv[4]} {step}" * 1000)
        run.publish(folder, "checkpoints", f"step-{step:06d}")
        events.append("checkpoint", step=step)
        events.publish()
        print("published", flush=True)
        sys.stdin.readline()
    run.publish(folder, "model")
run.finish({"by": sys.argv[4]})
"""


class Attempt:
    """A process that publishes two checkpoints, a model and a result, each when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def published(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "published\n"

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def run(s3_server: str) -> Run:
    return Run.create(Storage(s3_server), "train", "seed: 1\n")


@contextmanager
def attempt(run: Run, tmp_path: Path, name: str) -> Iterator[Attempt]:
    """Start the attempt of the Ray cluster `name` on a machine of its own."""
    folder = tmp_path / name
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _ATTEMPT, run.storage.root, run.id, str(folder), name],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / f"machine of {name}"), "HAETSAL_ATTEMPT": name},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Attempt(process)
    finally:
        process.kill()
        process.communicate()


def test_killed_attempt_is_followed_by_one_that_goes_on(run: Run, tmp_path: Path) -> None:
    with attempt(run, tmp_path, "first") as first:
        first.published()
        os.kill(first.process.pid, signal.SIGKILL)
        assert first.process.wait() == -9
    left = read_owner(run.storage, run.path())
    assert left and left.held and left.attempt == 1

    with attempt(run, tmp_path, "second") as second:
        second.published()
        second.go_on()
        second.published()
        second.go_on()
        assert second.process.wait() == 0, second.process.communicate()[1]

    assert run.result() == {"by": "second"}
    assert read_events(run)[2].fields == {"steps": ["step-000001"]}
    owner = read_owner(run.storage, run.path())
    assert owner and (owner.attempt, owner.unit, owner.past_units, owner.held) == (2, "second", ("first",), False)


def test_attempt_that_was_cut_off_publishes_nothing_more(run: Run, tmp_path: Path) -> None:
    with attempt(run, tmp_path, "first") as first, ExitStack() as stack:
        first.published()
        os.kill(first.process.pid, signal.SIGSTOP)  # alive, and away
        second = stack.enter_context(attempt(run, tmp_path, "second"))
        second.published()
        before = {name: run.storage.read(run.path(name)) for name in ("events.jsonl", "owner.json")}

        os.kill(first.process.pid, signal.SIGCONT)
        first.go_on()
        first_error = first.process.communicate()[1]

        assert "Superseded" in first_error and "attempt 1 lost this run, attempt 2 on" in first_error
        assert first.process.returncode == 1
        assert run.storage.list(run.path("checkpoints")) == ["step-000001"]
        assert {name: run.storage.read(run.path(name)) for name in before} == before
        second.go_on()
        second.published()
        second.go_on()
        assert second.process.wait() == 0, second.process.communicate()[1]

    run.storage.fetch_tree(run.path("model"), tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text().startswith("second 2")
    assert run.result() == {"by": "second"}


def test_manifest_is_not_written_by_who_lost_the_run_while_uploading(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_text("old")
    upload = Storage._upload

    def upload_then_lose(*arguments: Any) -> None:
        upload(*arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
            with Run.attempt(run.storage, run.id, "").lock():
                pass

    monkeypatch.setattr(Storage, "_upload", upload_then_lose)
    with pytest.raises(Superseded), run.lock():
        run.publish(tmp_path, "model")

    assert run.storage.exists(run.path("model/weights"))
    assert not run.storage.exists(run.path("model/manifest.json"))


def test_replaced_cluster_cannot_come_back_as_the_newest(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        monkeypatch.setenv("HAETSAL_ATTEMPT", name)
        with Run.attempt(run.storage, run.id, "").lock():
            pass

    monkeypatch.setenv("HAETSAL_ATTEMPT", "first")
    with pytest.raises(Superseded, match="first was replaced by second"), Run.attempt(run.storage, run.id, "").lock():
        pass


def test_workers_of_a_lost_run_lose_it_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right to publish travels with the settings to Ray's workers, and is lost for all of them at once."""
    worker = Run.open(run.storage, run.id)
    with run.lock():
        worker.join(run.share())
        worker.confirm()
        with EventLog(worker) as events:
            events.append("phase", name="load", seconds=1.0)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
        with Run.attempt(run.storage, run.id, "").lock():
            pass
        with pytest.raises(Superseded, match="attempt 1 lost this run, attempt 2 on"):
            worker.confirm()


def test_run_directory_on_a_disk_needs_no_fence(tmp_path: Path) -> None:
    run = Run.create(Storage(str(tmp_path)), "train", "")
    with run.lock():
        assert run.share() is None
        run.confirm()


def test_attempt_of_what_is_no_run_id(s3_server: str) -> None:
    with pytest.raises(UsageError, match="'x' cannot be a run id"):
        Run.attempt(Storage(s3_server), "x", "")


def test_end_on_record(run: Run) -> None:
    with run.lock(), EventLog(run) as events:
        events.append("failed", type="Diverged", reason="loss is nan", exit_code=5)
        events.publish()
        end = last_end(run)
        assert end and (end.kind, end.exit_code) == ("Diverged", 5)
        events.append("submitted")
    assert last_end(run) is None
