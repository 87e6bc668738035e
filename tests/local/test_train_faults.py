"""What training survives, and what ends it with a reason. Every fault here is real and proven to have happened."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import Command, Done, Started, checkpoint_steps, conversations, kinds, losses, overrides
from rows import jsonl
from safetensors.torch import load_file, save_file

from jobs.runs import Run, read_events, run_ids
from jobs.storage import Storage

LONG: dict[str, Any] = {
    "train.epochs": 6,
    "train.checkpoint_every_steps": 7,
    "train.keep_checkpoints": 3,
    "lora.dropout": 0.2,
    "eval.generations": 0,
}
"""60 steps, 10 an epoch, with a checkpoint in the middle of the second epoch."""


@pytest.fixture
def start(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start a training process under `LONG` and the given settings."""
    started: list[Started] = []

    def begin(environ: dict[str, str] | None = None, **values: Any) -> Started:
        root = tmp_path / "root"
        given = LONG | {key.replace("__", "."): value for key, value in values.items()}
        started.append(Started.train(overrides(tiny_model, tiny_data, root, given), root, environ))
        return started[-1]

    yield begin
    for process in started:
        process.stop()


def resume(command: Command, run: Run) -> Done:
    root = run.storage.root
    return command.call("train", root, "--set", f"storage.root={root}", "--resume", run.id)


@pytest.mark.long
@pytest.mark.usefixtures("untracked")
def test_killed_process_resumes_on_the_same_curve_beside_an_undisturbed_run(
    start: Callable[..., Started], command: Command
) -> None:
    killed, undisturbed = start(), start()  # at once, in one root
    run, whole = killed.run(), undisturbed.run()
    killed.wait_for(lambda: 14 in checkpoint_steps(run))
    killed.process.kill()

    assert killed.process.wait() == -signal.SIGKILL
    assert not run.finished
    reached = max(losses(run))
    assert reached < 60, "it was killed too late to prove anything"
    last = checkpoint_steps(run)[-1]
    assert undisturbed.finish().exit_code == 0

    again = resume(command, run)

    assert again.exit_code == 0, again.err
    assert run.result()["steps"] == 60
    assert kinds(run).count("config") == 2
    after = [e.fields["step"] for e in read_events(run)[kinds(run).index("config", 1) :] if e.kind == "metrics"]
    assert min(after) in (last, last + 1), "it did not go on from its last checkpoint"
    expected = losses(whole)
    assert list(expected) == list(range(1, 61))
    assert {s: v for s, v in losses(run).items() if s > last} == pytest.approx(
        {s: v for s, v in expected.items() if s > last}, abs=1e-5
    )
    assert run.result()["eval_loss"] == pytest.approx(whole.result()["eval_loss"], abs=1e-5)
    assert run.id != whole.id


def ray_workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The training workers of the Ray that `driver` started, and of no other."""
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


@pytest.mark.long
def test_killed_worker_is_replaced_and_goes_on_from_the_last_checkpoint(start: Callable[..., Started]) -> None:
    started = start(scaling__workers=2, train__epochs=24, train__checkpoint_every_steps=20)  # 120 steps
    run = started.run()
    started.wait_for(lambda: len(checkpoint_steps(run)) >= 2)
    workers = ray_workers(started.process)
    assert len(workers) == 2
    workers[1].kill()

    done = started.finish()

    assert done.exit_code == 0, done.err
    assert not any(worker.is_running() for worker in workers)
    events = read_events(run)
    assert kinds(run).count("config") == 2, "the worker was killed too late to prove anything"
    restart = kinds(run).index("config", 1)
    last = [event.fields["step"] for event in events[:restart] if event.kind == "checkpoint"][-1]
    first_again = next(event.fields["step"] for event in events[restart:] if event.kind == "metrics")
    assert last >= 40
    assert first_again in range(last - 20, last + 2)
    assert first_again > 1
    result = run.result()
    assert result["steps"] == 120
    assert result["eval_loss"] < result["base_loss"]
    assert sorted(losses(run)) == list(range(1, 121))


def signalled(command: Command, root: Path, signals: int, **values: Any) -> Done:
    """Train, and send this process SIGINT once the first checkpoint is on record."""

    def press() -> None:
        storage = Storage(str(root))
        while not any(checkpoint_steps(Run(storage, run_id)) for run_id in run_ids(storage)):
            time.sleep(0.005)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    done = command.train(root, **{key.replace(".", "__"): value for key, value in (LONG | values).items()})
    thread.join(1)
    return done


@pytest.mark.usefixtures("untracked")
def test_ctrl_c_stops_with_a_checkpoint_and_can_be_resumed(command: Command, tmp_path: Path) -> None:
    done = signalled(command, tmp_path, 1)

    run = done.run
    assert done.exit_code == 130
    assert not run.finished
    reached = max(losses(run))
    assert reached < 60
    assert checkpoint_steps(run)[-1] == reached
    assert f"stopped at step {reached} of 60" in done.error_line
    assert f"go on with: make train RESUME={run.id}" in done.err
    again = resume(command, run)
    assert again.exit_code == 0, again.err
    assert sorted(losses(run)) == list(range(1, 61))
    assert run.result()["steps"] == 60


@pytest.mark.usefixtures("untracked")
def test_checkpoint_that_was_cut_off_is_passed_over(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = signalled(command, tmp_path, 1).run
    newest, before = checkpoint_steps(run)[-1], checkpoint_steps(run)[-2]
    file = Path(run.address(f"checkpoints/step-{newest:06d}/optimizer.pt"))
    os.truncate(file, file.stat().st_size // 2)

    again = resume(command, run)

    assert again.exit_code == 0, again.err
    assert f"checkpoint passed over: {file}" in caplog.text
    after = [e.fields["step"] for e in read_events(run)[kinds(run).index("config", 1) :] if e.kind == "metrics"]
    assert min(after) == before + 1
    assert run.result()["steps"] == 60


@pytest.mark.usefixtures("untracked")
def test_run_away_loss_ends_the_run_with_the_reason(command: Command, tmp_path: Path) -> None:
    done = command.train(
        tmp_path,
        lora__method="full",
        train__learning_rate=1,
        train__schedule="linear",
        train__warmup=40,  # it learns first
        train__epochs=10,
        train__max_loss_ratio=1.5,
    )

    assert done.exit_code == 5
    assert "the loss rose to" in done.error_line
    assert "lower train.learning_rate" in done.error_line
    assert not done.run.finished
    last = read_events(done.run)[-1]
    assert (last.kind, last.fields["type"]) == ("failed", "Diverged")


@pytest.mark.usefixtures("untracked")
def test_loss_that_is_not_a_number_ends_the_run_at_once(command: Command, tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    done = command.train(tmp_path / "root", model__source=broken)

    assert done.exit_code == 5
    assert "is nan at step 1" in done.error_line
    assert not done.run.finished


def mount_tmpfs(folder: Path, size: str) -> None:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("this user may not mount")


@pytest.mark.usefixtures("untracked")
def test_disk_that_fills_up_ends_the_run_and_can_be_resumed(command: Command, tmp_path: Path) -> None:
    small = tmp_path / "small"
    mount_tmpfs(small, "1500k")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * 800_000)  # room for one checkpoint of all weights, not for two
        done = command.train(
            small, lora__method="full", **{k.replace(".", "__"): v for k, v in LONG.items() if "lora" not in k}
        )

        assert done.exit_code == 3
        assert "the disk is full; needs " in done.error_line
        assert checkpoint_steps(done.run) == [7]
        assert done.run.storage.list(done.run.path("checkpoints")) == ["step-000007"]
        assert not done.run.finished
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.long
def test_no_secret_is_written_anywhere(start: Callable[..., Started], tmp_path: Path) -> None:
    secrets = {
        "HF_TOKEN": "hf_" + "s3cr3tT0kenOfAUser" * 2,
        "AWS_SECRET_ACCESS_KEY": "aws/S3cretKeyThatNobodyMaySee0123456789",
        "MLFLOW_TRACKING_PASSWORD": "mlflow-passw0rd-of-a-user",
    }
    rows = conversations(49)
    for row in rows:
        row["messages"][0]["content"] += " " + secrets["AWS_SECRET_ACCESS_KEY"]
    data = jsonl(tmp_path / "rows.jsonl", *rows)
    done = start(secrets, train__epochs=1, eval__generations=5, data__source=data).finish()

    assert done.exit_code == 0, done.err
    written = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in written)
    everything = b"".join(path.read_bytes() for path in written) + (done.out + done.err).encode()
    assert b"[redacted]" in everything, "the report shows no prompt, so nothing was to be kept out"
    for secret in secrets.values():
        assert secret.encode() not in everything


def test_tracking_address_with_a_password_is_refused(command: Command, tmp_path: Path) -> None:
    done = command.train(tmp_path / "root", tracking__uri="http://user:passw0rd-1@mlflow:5000")

    assert done.exit_code == 2
    assert "tracking.uri: must not hold credentials" in done.error_line
    assert "passw0rd-1" not in done.err
    assert not (tmp_path / "root").exists()


def test_run_goes_on_without_its_tracking_server(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        done = command.train(tmp_path, tracking__uri="http://127.0.0.1:9", tracking__timeout_s=2)

    assert done.exit_code == 0, done.err
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "`make sync` sends them later" in warnings[0]
    assert done.run.finished
