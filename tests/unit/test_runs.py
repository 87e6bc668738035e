"""Run ids, run directories, and which run is the latest."""

import random
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from jobs.errors import UsageError
from jobs.runs import Run, git_revision, latest, new_run_id, run_ids
from jobs.storage import AlreadyExists, Storage

NOW = datetime(2026, 11, 22, 9, 30, 5, tzinfo=UTC)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_id_holds_job_utc_time_and_randomness() -> None:
    seoul = NOW.astimezone(timezone(timedelta(hours=9)))

    run_id = new_run_id("train", seoul, random.Random(1))

    assert re.fullmatch(r"train-20261122-093005-[0-9a-f]{4}", run_id)
    assert run_id != new_run_id("train", seoul, random.Random(2))


@pytest.mark.parametrize("job", ["", "Train", "a/b", "x" * 27])
def test_bad_job_name_is_refused(job: str) -> None:
    with pytest.raises(UsageError, match="job "):
        new_run_id(job, NOW, random.Random(1))


def test_taken_id_is_not_taken_twice(storage: Storage) -> None:
    first = Run.create(storage, "train", "a: 1\n", NOW, random.Random(7))
    second = Run.create(storage, "train", "a: 2\n", NOW, random.Random(7))  # draws the same id first

    assert first.id != second.id
    assert (first.config(), second.config()) == ("a: 1\n", "a: 2\n")
    with pytest.raises(AlreadyExists):
        storage.create(first.path("config.yaml"), b"a: 3\n")


def test_unknown_run_names_the_nearest(storage: Storage) -> None:
    run = Run.create(storage, "train", "", NOW, random.Random(7))

    with pytest.raises(UsageError, match=f"did you mean {run.id}"):
        Run.open(storage, run.id[:-1])
    with pytest.raises(UsageError, match="no run"):
        Run.open(storage, "../../etc")


def test_no_run_at_all_says_so(storage: Storage) -> None:
    with pytest.raises(UsageError, match="there are no runs yet"):
        Run.open(storage, "train-20261122-093005-0000")
    with pytest.raises(UsageError, match="no run has finished"):
        latest(storage)


def test_latest_is_the_run_that_finished_last(storage: Storage) -> None:
    older = Run.create(storage, "train", "", NOW)
    newer = Run.create(storage, "train", "", NOW + timedelta(minutes=1))
    other = Run.create(storage, "tune", "", NOW + timedelta(minutes=2))
    unfinished = Run.create(storage, "train", "", NOW + timedelta(minutes=3))
    for run in (newer, older, other):
        run.finish({"perplexity": 3.5})

    assert (latest(storage), latest(storage, "train"), latest(storage, "tune")) == (other.id, older.id, other.id)
    assert run_ids(storage) == sorted([older.id, newer.id, other.id, unfinished.id])
    assert older.finished
    assert not unfinished.finished


def test_result_comes_back_without_secrets(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "s3cr3t-s3cr3t")
    run = Run.create(storage, "train", "note: s3cr3t-s3cr3t\n")
    with pytest.raises(UsageError, match="did not finish"):
        run.result()

    run.finish({"perplexity": 3.5, "model": "made with s3cr3t-s3cr3t"})

    assert run.result() == {"perplexity": 3.5, "model": "made with [redacted]"}
    assert run.config() == "note: [redacted]\n"


def test_git_revision_is_the_commit_of_this_checkout() -> None:
    revision = git_revision()

    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", revision)
