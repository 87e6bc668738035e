"""The diary of a run survives crashes, holds no secrets, and names what is damaged."""

import json
import threading
from pathlib import Path

import pytest

from jobs.errors import IntegrityError
from jobs.runs import EventLog, Run, read_events
from jobs.storage import Storage


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Storage(str(tmp_path)), "train", "seed: 1\n")


def test_events_come_back_as_they_were_written(run: Run) -> None:
    with EventLog(run, clock=lambda: 12.5) as log:
        log.append("metrics", step=1, values={"loss": 2.5})
        log.append("warning", text="눈이 온다")

    first, second = read_events(run)

    assert (first.seq, first.time_unix_s, first.kind, first.fields) == (
        1,
        12.5,
        "metrics",
        {"step": 1, "values": {"loss": 2.5}},
    )
    assert (second.seq, second.fields) == (2, {"text": "눈이 온다"})


def test_torn_last_line_is_not_an_event_and_is_cut_off_on_reopening(run: Run) -> None:
    with EventLog(run) as log:
        log.append("a")
        log.append("b")
    with log.path.open("ab") as file:
        file.write(b'{"seq": 3, "time_unix_s": 1.0, "ki')

    assert [event.kind for event in read_events(run)] == ["a", "b"]
    with EventLog(run) as log:
        log.append("c")

    assert [(event.seq, event.kind) for event in read_events(run)] == [(1, "a"), (2, "b"), (3, "c")]


def test_damage_before_the_last_line_is_named(run: Run) -> None:
    with EventLog(run) as log:
        log.append("a")
    with log.path.open("ab") as file:
        file.write(b"\0\0\0\n")

    with pytest.raises(IntegrityError, match=r"events\.jsonl: line 2 is not an event"):
        EventLog(run)


def test_no_secret_and_no_invalid_json_reaches_the_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "correct-horse-battery")
    with EventLog(run) as log:
        log.append("failed", reason="cannot log in with correct-horse-battery", values={"loss": float("nan")})

    line = log.path.read_text()

    assert "correct-horse-battery" not in line
    assert json.loads(line, parse_constant=pytest.fail)["values"] == {"loss": "nan"}


def test_threads_do_not_mix_their_lines(run: Run) -> None:
    with EventLog(run) as log:
        threads = [
            threading.Thread(target=lambda name=name: [log.append(name, text="x" * 500) for _ in range(100)])
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [event.seq for event in read_events(run)] == list(range(1, 401))


def test_listener_hears_of_each_append(run: Run) -> None:
    heard: list[int] = []
    with EventLog(run) as log:
        log.listeners.append(lambda: heard.append(len(list(log.read()))))
        log.append("a")
        log.append("b")

    assert heard == [1, 2]
