"""MLflow gets every event once, and the run never waits for it: against a real MLflow server and real faults."""

import fcntl
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import RemoteError, UsageError
from jobs.mlflow_sink import open_sink
from jobs.runs import EventLog, Run
from jobs.settings import TrackingSettings
from jobs.storage import Storage
from jobs.tracking import Tracker, sync

SETTINGS = {"train": {"epochs": 1.0, "seed": 42}, "model": {"revision": None}}
STEPS = 50


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Front:
    """An address before the real server. `mode` says what it does: "away", "hang", "error" or "pass"."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.hit = threading.Event()
        self.released = threading.Event()
        self.target_port = 0
        self.port = free_port()
        if mode != "away":
            self.listen()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                front.hit.set()
                if front.mode == "hang":
                    front.released.wait()  # accepted, and never answered
                    return
                if front.mode == "error":
                    self.send_error(500)
                    return
                onward = http.client.HTTPConnection("127.0.0.1", front.target_port, timeout=60)
                onward.request(self.command, self.path, body, {"Content-Type": "application/json"})
                answer = onward.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do  # noqa: N815, http.server's names

            def log_message(self, *arguments: Any) -> None:
                """Keep the test's output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def heal(self, target_port: int) -> None:
        if self.mode == "away":
            self.listen()
        self.target_port = target_port
        self.mode = "pass"
        self.released.set()


class MlflowServer:
    """A real `mlflow server`; it starts while other things go on, since that takes 10 to 30 seconds."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        self.process = subprocess.Popen(
            [*command, "--artifacts-destination", str(folder / "artifacts")],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
        self.started = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "Application startup complete" in line:
                self.started.set()

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.stop()


class Outcome:
    """What became of a run whose MLflow had a fault from its first to its last event."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.front = Front(mode)
        self.tracking = TrackingSettings(uri=self.front.uri, timeout_s=1)
        self.run = Run.create(Storage(str(folder / mode)), "train", "")
        self.slowest_append_s = 0.0
        self.exit_s = 0.0

    def train(self) -> None:
        with self.run.lock(), EventLog(self.run) as log:
            with Tracker(self.tracking, log) as tracker:
                log.append("config", settings=SETTINGS, git_revision="0" * 40)
                log.append("metrics", step=0, values={"loss": 3.0})
                assert tracker._ready.wait(120)
                if self.front.mode != "away":
                    assert self.front.hit.wait(60)
                for step in range(1, STEPS):
                    started = time.perf_counter()
                    log.append("metrics", step=step, values={"loss": 3.0 / step, "tokens/s": 100.0 + step})
                    self.slowest_append_s = max(self.slowest_append_s, time.perf_counter() - started)
                self.run.storage.write(self.run.path("report", "report.md"), "# 보고서\n".encode())
                log.append("result", perplexity=3.5)
                started = time.perf_counter()
            self.exit_s = time.perf_counter() - started
        self.run.finish({"perplexity": 3.5})


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer
) -> Iterator[tuple[dict[str, Outcome], list[str]]]:
    """Three runs side by side, as two runs on one machine are, each with a fault of its own; and all warnings."""
    folder = tmp_path_factory.mktemp("outcomes")
    warnings: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.tracking._log.warning", lambda text, *values: warnings.append(text % values))
        made = {mode: Outcome(mode, folder) for mode in ("away", "hang", "error")}
        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(outcome.train) for outcome in made.values()]:
                done.result()
    yield made, warnings
    for outcome in made.values():
        outcome.front.server.shutdown()


@pytest.fixture(scope="module", params=["away", "hang", "error"])
def outcome(outcomes: tuple[dict[str, Outcome], list[str]], request: pytest.FixtureRequest) -> Outcome:
    return outcomes[0][request.param]


def test_faulty_server_never_slows_the_run(outcome: Outcome) -> None:
    assert outcome.slowest_append_s < 0.1
    assert outcome.exit_s < 10  # the limit is 1 s, and the machine may be busy
    assert outcome.run.finished


def test_faulty_server_is_warned_of_once(outcome: Outcome, outcomes: tuple[dict[str, Outcome], list[str]]) -> None:
    warnings = [text for text in outcomes[1] if outcome.run.id in text]

    assert len(warnings) == 1
    assert outcome.front.uri in warnings[0]
    assert "make sync" in warnings[0]


def test_sync_delivers_everything_and_a_second_sync_nothing(outcome: Outcome, mlflow_server: MlflowServer) -> None:
    from mlflow import MlflowClient

    assert mlflow_server.started.wait(120)

    assert not outcome.run.storage.exists(outcome.run.path("tracking.json")), "something got through the fault"
    outcome.front.heal(mlflow_server.port)

    first = sync(outcome.run.storage, outcome.tracking)
    client = MlflowClient(f"http://127.0.0.1:{mlflow_server.port}")
    before = delivered(client, outcome.run.id)
    second = sync(outcome.run.storage, outcome.tracking)

    assert first.sent == {outcome.run.id: STEPS + 2}
    assert second.sent == {outcome.run.id: 0}
    assert delivered(client, outcome.run.id) == before
    (run,) = before
    assert run["params"] == {"train.epochs": "1.0", "train.seed": "42", "model.revision": "None"}
    assert [point[0] for point in run["loss"]] == list(range(STEPS))
    assert run["loss"][2][1] == 1.5
    assert run["status"] == "FINISHED"
    assert run["artifacts"] == ["report/report.md"]


def delivered(client: Any, run_id: str) -> list[dict[str, Any]]:
    """All that MLflow holds of one of our runs; a list, to see doubles."""
    experiment = client.get_experiment_by_name("haetsal")
    found = client.search_runs([experiment.experiment_id], f"tags.`haetsal.run` = '{run_id}'")
    return [
        {
            "params": run.data.params,
            "metrics": run.data.metrics,
            "status": run.info.status,
            "commit": run.data.tags.get("mlflow.source.git.commit"),
            "loss": sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "loss")),
            "artifacts": [file.path for file in client.list_artifacts(run.info.run_id, "report")],
        }
        for run in found
    ]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """One for most tests, since making MLflow's SQLite database takes seconds."""
    return Storage(str(tmp_path_factory.mktemp("storage")))


@pytest.fixture
def run(storage: Storage) -> Run:
    return Run.create(storage, "train", "")


@pytest.fixture
def lone_run(tmp_path: Path) -> Run:
    return Run.create(Storage(str(tmp_path)), "train", "")


def client_of(run: Run) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{run.storage.root}/mlflow.db")


def test_resumed_run_goes_on_in_the_same_mlflow_run(run: Run) -> None:
    with EventLog(run, clock=lambda: 1000.0) as log:
        log.append("config", settings=SETTINGS, git_revision="a" * 40)
        log.append("metrics", step=1, values={"loss": 2.0})
        log.append("failed", reason="the worker died", type="RemoteError")
    sync(run.storage, TrackingSettings())
    assert [found["status"] for found in delivered(client_of(run), run.id)] == ["FAILED"]

    with EventLog(run, clock=lambda: 2000.0) as log:
        log.append("config", settings={**SETTINGS, "train": {"epochs": 2.0}}, git_revision="b" * 40)
        log.append("metrics", step=2, values={"loss": float("nan")})
        log.append("phase", name="train", seconds=12.5)
        log.append("result", perplexity=3.5, base={"perplexity": 7.0}, model="a text", best=True)
    sync(run.storage, TrackingSettings())

    (found,) = delivered(client_of(run), run.id)
    assert found["status"] == "FINISHED"
    assert found["params"]["train.epochs"] == "1.0"
    assert found["commit"] == "b" * 40
    assert [(step, str(value), ms) for step, value, ms in found["loss"]] == [
        (1, "2.0", 1_000_000),
        (2, "nan", 2_000_000),
    ]
    del found["metrics"]["loss"]
    assert found["metrics"] == {"phase/train_seconds": 12.5, "result/perplexity": 3.5, "result/base.perplexity": 7.0}


def test_events_sent_again_change_nothing(run: Run) -> None:
    """What a crash between MLflow's acknowledgement and our note of it leads to."""
    with EventLog(run) as log:
        log.append("config", settings=SETTINGS)
        for step in range(1, STEPS):
            log.append("metrics", step=step, values={"loss": 1.0 / step})
        log.append("failed", reason="stopped", type="Interrupted")
    sync(run.storage, TrackingSettings())
    before = delivered(client_of(run), run.id)
    assert before[0]["status"] == "KILLED"

    run.storage.delete_tree(run.path("tracking.json"))
    again = sync(run.storage, TrackingSettings())

    assert again.sent[run.id] == STEPS + 1
    assert delivered(client_of(run), run.id) == before
    assert len(before[0]["loss"]) == STEPS - 1


def test_run_deleted_in_mlflow_is_refused_without_stopping_the_others(lone_run: Run) -> None:
    run = lone_run
    for each in (run, other := Run.create(run.storage, "train", "")):
        with EventLog(each) as log:
            log.append("metrics", step=1, values={"loss": 1.0})
    sync(run.storage, TrackingSettings())
    client = client_of(run)
    experiment = client.get_experiment_by_name("haetsal").experiment_id
    first, second = sorted((run, other), key=lambda each: each.id)
    client.delete_run(client.search_runs([experiment], f"tags.`haetsal.run` = '{first.id}'")[0].info.run_id)
    for each in (first, second):
        with EventLog(each) as log:
            log.append("metrics", step=2, values={"loss": 0.5})

    with pytest.raises(RemoteError, match=first.id):
        sync(run.storage, TrackingSettings())

    assert len(delivered(client, second.id)[0]["loss"]) == 2


def test_busy_run_is_left_to_its_own_tracker(run: Run) -> None:
    with run.lock():
        assert sync(run.storage, TrackingSettings()).busy == [run.id]


def test_sqlite_cannot_live_on_s3(s3_server: str, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage(s3_server)
    run = Run.create(storage, "train", "")
    with EventLog(run) as log, Tracker(TrackingSettings(), log):
        log.append("metrics", step=1, values={"loss": 1.0})

    assert [record.message for record in caplog.records if "tracking.uri is not set" in record.message]
    with pytest.raises(UsageError, match=r"set tracking\.uri"):
        sync(storage, TrackingSettings())


def test_run_on_s3_is_delivered_with_its_report(s3_server: str, tmp_path: Path) -> None:
    run = Run.create(Storage(s3_server), "train", "")
    run.storage.write(run.path("report", "report.md"), b"# report\n")
    with EventLog(run) as log:
        log.append("metrics", step=1, values={"loss": 1.0})
        log.append("result", perplexity=3.5)
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    assert sync(run.storage, TrackingSettings(uri=uri)).sent == {run.id: 2}

    from mlflow import MlflowClient

    (found,) = delivered(MlflowClient(uri), run.id)
    assert found["artifacts"] == ["report/report.md"]


_KILLED_RUN = """
import os, signal, sys
from jobs.mlflow_sink import open_sink
from jobs.runs import EventLog, Run
from jobs.settings import TrackingSettings
from jobs.storage import Storage
from jobs.tracking import Tracker

run = Run(Storage(sys.argv[1]), sys.argv[2])
with run.lock(), EventLog(run) as log, Tracker(TrackingSettings(), log) as tracker:
    log.append("metrics", step=1, values={"loss": 1.0})
    print(tracker._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_is_delivered_once_although_its_shipper_outlives_it(lone_run: Run) -> None:
    run = lone_run
    command = [sys.executable, "-c", _KILLED_RUN, run.storage.root, run.id]
    killed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -9
    shipper = os.pidfd_open(int(killed.stdout))

    sync(run.storage, TrackingSettings())  # at the same time as the orphan

    assert select.select([shipper], [], [], 60)[0], "the shipper of a killed run did not end"
    os.close(shipper)
    (found,) = delivered(client_of(run), run.id)
    assert len(found["loss"]) == 1
    assert [path.name for path in Path(run.storage.root).glob("*mlflow.db*")] == ["mlflow.db"]


def test_second_sink_of_a_run_waits_for_the_first(run: Run) -> None:
    uri = f"sqlite:///{run.storage.root}/mlflow.db"

    def open_and_close() -> None:
        with open_sink(run, TrackingSettings(), uri):
            pass

    second = threading.Thread(target=open_and_close)
    with open_sink(run, TrackingSettings(), uri):
        second.start()
        second.join(0.5)
        assert second.is_alive()
    second.join(60)
    assert not second.is_alive()


def test_tracker_ships_while_the_run_goes_on(run: Run) -> None:
    with EventLog(run) as log, Tracker(TrackingSettings(), log) as tracker:
        log.append("config", settings=SETTINGS)
        assert tracker._ready.wait(120)
        log.append("result", perplexity=3.5)

    (found,) = delivered(client_of(run), run.id)
    assert (found["status"], found["metrics"]) == ("FINISHED", {"result/perplexity": 3.5})


def test_shipper_that_cannot_work_is_warned_of(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with EventLog(run) as log, Tracker(TrackingSettings(uri="ftp://nowhere"), log):
        log.append("metrics", step=1, values={"loss": 1.0})

    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("MLflow at ftp://nowhere: ")


def test_stopped_shipper_never_blocks_the_run(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.tracking._STARTUP_LIMIT_S", 0.1)
    with EventLog(run) as log:
        with Tracker(TrackingSettings(timeout_s=0.1), log) as tracker:
            os.kill(tracker._process.pid, signal.SIGSTOP)
            rescue = threading.Timer(20, tracker._process.kill)  # frees an append that blocks, so that this test ends
            rescue.start()
            pipe_bytes = fcntl.fcntl(tracker._pipe, fcntl.F_SETPIPE_SZ, 4096)
            for step in range(pipe_bytes + 100):  # more news than the pipe can hold
                log.append("metrics", step=step, values={})
            assert tracker._process.poll() is None, "an append waited for the shipper"
        rescue.cancel()
        assert tracker._process.returncode == -signal.SIGKILL

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "did not take everything within 0.1 s" in caplog.text


def test_trials_of_a_study_are_runs_below_its_run(storage: Storage) -> None:
    run = Run.create(storage, "tune", "")
    with EventLog(run, clock=lambda: 1000.0) as log:
        log.append("config", settings=SETTINGS)
        for number in range(3):
            drawn = {"train.learning_rate": 0.1**number, "lora.rank": 8}
            log.append("trial_started", trial=number, draw=drawn, parameters=drawn)
            log.append("trial_report", trial=number, step=5, steps=10, eval_loss=2.0 + number)
        log.append("trial_report", trial=0, step=10, steps=10, eval_loss=1.5)
        log.append("trial_ended", trial=0, outcome="completed", reason=None)
        log.append("trial_ended", trial=1, outcome="stopped", reason=None)
    sync(storage, TrackingSettings())
    with EventLog(run, clock=lambda: 2000.0) as log:  # the study goes on in another session
        log.append("config", settings=SETTINGS)
        log.append("trial_started", trial=2, draw=drawn, parameters=drawn)
        log.append("trial_report", trial=2, step=10, steps=10, eval_loss=3.5)
        log.append("trial_ended", trial=2, outcome="diverged", reason="the loss rose")
        log.append("result", best_trial=0, best_eval_loss=1.5)
    sync(storage, TrackingSettings())

    client = client_of(run)
    (parent,) = delivered(client, run.id)
    assert (parent["status"], parent["metrics"]["result/best_eval_loss"]) == ("FINISHED", 1.5)
    experiment = client.get_experiment_by_name("haetsal").experiment_id
    (study,) = client.search_runs([experiment], f"tags.`haetsal.run` = '{run.id}'")
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{study.info.run_id}'")
    by_name = {child.info.run_name: child for child in children}
    assert sorted(by_name) == [f"{run.id}/{number:04d}" for number in range(3)]
    told = [
        (c.info.status, c.data.tags["haetsal.outcome"], c.data.metrics["eval_loss"]) for _, c in sorted(by_name.items())
    ]
    assert told == [("FINISHED", "completed", 1.5), ("KILLED", "stopped", 3.0), ("FAILED", "diverged", 3.5)]
    assert by_name[f"{run.id}/0001"].data.params == {"train.learning_rate": "0.1", "lora.rank": "8"}
    history = client.get_metric_history(by_name[f"{run.id}/0000"].info.run_id, "eval_loss")
    assert [(point.step, point.value) for point in history] == [(5, 2.0), (10, 1.5)]
