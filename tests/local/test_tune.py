"""`make tune` with real Ray Tune on the tiny model, through every fault it promises to survive.

One study is looked at from all sides, because starting Ray and importing a trainer twice takes most of the time. Its
seven draws are those of a fixed seed: two good ones, then one of each kind that goes wrong by itself (no memory, a loss
that runs away, a rate too low to learn), then two good ones. When five have ended, the driver is killed; the study is
then resumed, and the process of the first trial that reports is killed, too.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
import torch
import yaml
from commands import REPOSITORY, TINY, Command, Done, checkpoint_steps, conversations, kinds
from PIL import Image
from rows import jsonl
from transformers import LlamaConfig, LlamaForCausalLM

from jobs.runs import Run, read_events, run_ids
from jobs.storage import Storage
from jobs.tuning import record
from jobs.tuning.trial import run_of

MORE_BYTES = 500 * 2**20
"""What a process may still take after an evaluation of its first trial. An adapter of rank 1,024 on the wide model has
50 million weights, which take 800 MB with gradients and optimiser; one of rank 4 has 200,000."""

DRIVER = """
import sys
from contextlib import nullcontext
from jobs import cli, tune
from jobs.tuning import study
study.Tracker = lambda *_: nullcontext()
cli.main(tune.main)
"""


def settings_file(folder: Path) -> Path:
    """The wide tiny model, its rows and a study over them, all below `folder`."""
    torch.manual_seed(7)
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(folder / "model")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=8192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 50  # or the logits stay so small that no learning rate makes them very wrong
    model.save_pretrained(folder / "model")
    rows = jsonl(folder / "rows.jsonl", *conversations(49))
    tree: dict[str, Any] = {
        "tune": {
            "space": {
                "train": {"learning_rate": {"choices": [1e-6, 3e-5, 1e-2]}},
                "lora": {"rank": {"choices": [4, 1024]}},
            },
            "samples": 7,
            "random_starts": 7,
            "max_concurrent": 2,
            "evaluations": 8,
        }
    }
    own = {"train.seed": 5242, "train.max_steps": 32, "train.max_loss_ratio": 1.3, "train.epochs": 1}
    given = {"model.source": str(folder / "model"), "data.source": str(rows), "storage.root": str(folder / "root")}
    for key, value in (TINY | given | own).items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def process_of(run: Run, trial: int) -> psutil.Process | None:
    """The process that has the trial's events open for writing."""
    events = str(run_of(run, trial).storage.local_path(run_of(run, trial).path("events.jsonl")))
    for process in psutil.process_iter():
        try:
            if any(file.path == events for file in process.open_files()):
                return process
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return None


def data_bytes(pid: int) -> int:
    """What counts against RLIMIT_DATA."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData"))


@dataclass
class Watch:
    """Follows a study from outside and calls `on_report(trial)` for every evaluation from now on."""

    run: Run
    on_report: Callable[[int], None]
    done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self.seen = len(read_events(self.run))
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()
        return self

    def follow(self) -> None:
        while not self.done.is_set():
            events = read_events(self.run)
            for event in events[self.seen :]:
                if event.kind == record.REPORT:
                    self.on_report(event.fields["trial"])
            self.seen = len(events)
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


@dataclass
class Study:
    """What became of the study, with a copy of the root as it was between the two kills."""

    file: Path
    run: Run
    limited: list[int]
    before: dict[int, record.Trial]
    steps_before: dict[int, list[int]]
    left_by_driver: list[psutil.Process]
    halfway: Path
    killed: list[int]
    resumed: Done

    @property
    def found(self) -> dict[int, record.Trial]:
        return record.trials(read_events(self.run))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("tune")
    file = settings_file(folder)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, "--config", str(file)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert driver.stdout is not None
        named = next((line for line in driver.stdout if line.startswith("run ")), None)
        assert named, driver.communicate()[1]
        run = Run.open(Storage(str(folder / "root")), named.split()[1])
        limited: list[int] = []

        def limit(trial: int) -> None:
            process = process_of(run, trial)
            if process and process.pid not in limited:
                most = data_bytes(process.pid) + MORE_BYTES
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
                limited.append(process.pid)

        with Watch(run, limit):
            while True:
                assert driver.poll() is None, driver.communicate()[1]
                now = record.trials(read_events(run)).values()
                if sum(t.outcome is not None for t in now) >= 5 and any(t.reports and not t.outcome for t in now):
                    break
                time.sleep(0.005)
        below = psutil.Process(driver.pid).children(recursive=True)
        at_work = [number for number, trial in record.trials(read_events(run)).items() if trial.outcome is None]
        trials = [process for number in at_work if (process := process_of(run, number))]
        assert trials
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    _, left = psutil.wait_procs(trials, timeout=60)
    before = record.trials(read_events(run))
    steps = {number: checkpoint_steps(run_of(run, number)) for number in before}
    shutil.copytree(folder / "root", folder / "halfway")
    killed: list[int] = []

    def kill(trial: int) -> None:
        process = process_of(run, trial)
        if process and not killed:
            process.kill()
            process.wait(60)
            killed.append(trial)

    with pytest.MonkeyPatch.context() as patch, Watch(run, kill):
        resumed = call(patch, folder / "root", "--set", f"storage.root={folder / 'root'}", "--resume", run.id)
    _, left_of_ray = psutil.wait_procs(below, timeout=120)  # its agents spend a minute on telling a head that is gone
    left += left_of_ray
    yield Study(file, run, limited, before, steps, left, folder / "halfway", killed, resumed)


def call(patch: pytest.MonkeyPatch, root: Path, *arguments: str) -> Done:
    patch.setattr("jobs.tuning.study.Tracker", lambda *_: nullcontext())
    return Command(root, root, patch).call("tune", root, *arguments)


@pytest.mark.long
def test_study_ends_well_in_spite_of_it_all(study: Study) -> None:
    assert study.resumed.exit_code == 0, study.resumed.err
    result = study.run.result()
    assert result["trials"] == 7
    assert result["ended_by"] == "tune.samples"
    assert sum(result["outcomes"].values()) == 7
    best = min((t for t in study.found.values() if t.sound), key=lambda trial: trial.loss)
    assert result["best_trial"] == best.number
    assert result["best_eval_loss"] == best.loss


@pytest.mark.long
def test_each_trial_has_one_line_as_it_ends(study: Study) -> None:
    lines = [line for line in study.resumed.out.splitlines() if line.startswith("trial ")]
    ended_after = [number for number, trial in study.found.items() if study.before.get(number, trial).outcome is None]
    assert len(lines) == len(ended_after) + sum(n not in study.before for n in study.found)


@pytest.mark.long
def test_trial_without_memory_is_recorded_and_its_process_goes_on(study: Study) -> None:
    (poor,) = (t for t in study.before.values() if t.parameters["lora.rank"] == 1024)
    assert study.limited
    assert (poor.outcome, poor.reports) == ("out_of_memory", [])
    assert poor.reason
    assert "memory" in poor.reason
    assert any(trial.sound for number, trial in study.found.items() if number > poor.number)


@pytest.mark.long
def test_diverging_trial_is_recorded_with_its_reason(study: Study) -> None:
    (wild,) = (t for t in study.before.values() if t.parameters["train.learning_rate"] == 1e-2)
    assert wild.outcome == "diverged"
    assert wild.reason
    assert "lower train.learning_rate" in wild.reason
    assert "result" not in kinds(run_of(study.run, wild.number))


@pytest.mark.long
def test_asha_stops_what_learns_nothing(study: Study) -> None:
    stopped = [t for t in study.found.values() if t.outcome == "stopped"]
    assert stopped
    for trial in stopped:
        assert 0 < trial.trained_steps < 32
        assert (
            max(checkpoint_steps(run_of(study.run, trial.number))) < trial.trained_steps
        )  # its own log goes no further
    result = study.run.result()
    assert result["training_steps"] < result["training_steps_without_stopping"]


@pytest.mark.long
def test_killed_driver_takes_its_trials_along(study: Study) -> None:
    assert study.left_by_driver == []
    assert sum(trial.outcome is None for trial in study.before.values()) >= 1


@pytest.mark.long
def test_resuming_repeats_no_finished_trial_and_no_finished_step(study: Study) -> None:
    for number, trial in study.before.items():
        starts = kinds(run_of(study.run, number)).count("config")
        steps = checkpoint_steps(run_of(study.run, number))
        if trial.outcome is not None:
            assert starts == 1
            assert steps == study.steps_before[number]
        else:
            assert starts == 2 or not study.steps_before[number]
            assert steps[: len(study.steps_before[number])] == study.steps_before[number]
        assert steps == sorted(set(steps))
        assert study.found[number].draw == trial.draw


@pytest.mark.long
def test_killed_trial_is_recorded_and_the_study_goes_on(study: Study) -> None:
    (killed,) = study.killed
    dead = study.found[killed]
    assert dead.outcome == "died"
    assert dead.reason
    assert "process ended" in dead.reason
    assert "result" not in kinds(run_of(study.run, killed))
    assert study.run.finished


@pytest.mark.long
def test_only_the_best_adapter_is_kept(study: Study) -> None:
    left = [path.name for path in Path(study.run.address()).rglob("*.safetensors")]
    assert left == ["adapter_model.safetensors"]
    assert not list(Path(study.run.address()).rglob("optimizer.pt"))


@pytest.mark.long
def test_report_shows_every_trial_and_three_plots(study: Study) -> None:
    report = Path(study.run.address("report"))
    text = (report / "report.md").read_text(encoding="utf-8")
    for number in study.found:
        assert f"\n| {number} | {study.found[number].outcome} |" in text
    for plot in ("history.png", "importance.png", "parallel.png"):
        with Image.open(report / plot) as image:
            assert image.width > 600
        assert f"({plot})" in text


@pytest.mark.long
def test_train_takes_the_best_values(study: Study, command: Command, tmp_path: Path) -> None:
    best = Path(study.run.address("best.yaml"))
    told = study.resumed.out.split("make train SET='")[1].split("'")[0]
    assert told == f"@{best}"
    command.monkeypatch.setattr("jobs.training.loop.Tracker", lambda *_: nullcontext())

    done = command.call("train", tmp_path, "--config", str(study.file), "--set", f"{told} storage.root={tmp_path}")

    assert done.exit_code == 0, done.err
    trained = yaml.safe_load(done.run.config())
    chosen = yaml.safe_load(best.read_text(encoding="utf-8"))
    assert chosen["train"]["learning_rate"] == trained["train"]["learning_rate"]
    assert chosen["lora"]["rank"] == trained["lora"]["rank"]


@pytest.mark.long
def test_adapter_of_a_study_can_be_talked_to(study: Study, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: (_ for _ in ()).throw(EOFError))
    root = study.run.storage.root
    done = command.call("chat", root, "--set", f"storage.root={root}", "--run", study.run.id)
    assert done.exit_code == 0, done.err


@pytest.mark.long
def test_spent_budget_ends_a_study_with_what_it_has(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    root = study.halfway
    run = Run.open(Storage(str(root)), study.run.id)
    config = yaml.safe_load(run.config())
    config["cost"] |= {"usd_per_hour": {"training": 36.0}, "run_budget_usd": 0.01}  # a second of one machine
    config["storage"]["root"] = str(root)
    run.storage.write(run.path("config.yaml"), yaml.safe_dump(config).encode())

    done = call(monkeypatch, root, "--set", f"storage.root={root}", "--resume", run.id)

    assert done.exit_code == 0, done.err
    assert "cost.run_budget_usd is spent" in done.out
    found = record.trials(read_events(run))
    assert all((t.outcome == "cut_off") == (study.before[n].outcome is None) for n, t in found.items())
    assert run.result()["cost"]["usd"] >= 0.01
    assert run.storage.exists(run.path("best.yaml"))


@pytest.mark.long
def test_trials_that_are_the_beginning_of_a_training_are_complete_there(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = str(REPOSITORY / "jobs/configs/local.yaml")
    own = "train.max_steps=24 tune.samples=2 tune.random_starts=2 tune.grace=2"
    given = f"storage.root={tmp_path} model.source={tiny_model} data.source={tiny_data} data.held_out=0.2 {own}"

    done = call(monkeypatch, tmp_path, "--config", config, "--set", given)

    assert done.exit_code == 0, done.err
    found = record.trials(read_events(done.run)).values()
    assert [(trial.outcome, trial.trained_steps) for trial in found].count(("completed", 6)) >= 1
    assert {trial.outcome for trial in found} <= {"completed", "stopped"}
    assert max(trial.trained_steps for trial in found) == 6
    assert b"of 24 steps" in done.run.storage.read(done.run.path("best.yaml"))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("tune.space.lora.rnk.choices=[1,2]", "lora.rnk: unknown key; did you mean rank?"),
        ("tune.space.lora.rank.choices=[8,5000]", "lora.rank=5000: lora.rank: should be less than or equal to 1024"),
        ("tune.space.lora.rank.choices=[8,many]", "lora.rank is not a number"),
        ("tune.space.lora.rank.max=4", "give either choices, or min and max"),
        ("tune.space.train.learning_rate.min=1", "min 1 must be below max"),
        ("tune.space.train.learning_rate.min=0", "log needs a min above 0"),
        ("tune.space.lora.alpha.times=lora.rang", "there is no setting 'lora.rang'"),
        ("tune.space.lora.alpha.times=lora.method", "lora.method is not a number"),
        ("tune.space.lora.alpha.times=lora.alpha", "lora.alpha is itself relative"),
        ("tune.space.lora.alpha.choices=[1,1000]", "lora.alpha"),
        ("tune.space.data.max_length.choices=[1,2]", "tune.space.data: unknown key"),
        ("tune.space.train.checkpoint_every_steps.choices=[1,2]", "must be the same for all trials"),
        ("tune.grace=100", "beyond the end of a trial"),
        ("tune.stop_after=9", "beyond the 8 evaluations of a training"),
        ("scaling.workers=2", "a trial trains in one process"),
        ("tune.space.train.learning_rate=null tune.space.lora=null", "tune.space"),
        (
            "tune.space.lora.method.choices=[lora,full] tune.space.model.quantization.choices=[none,4bit]",
            "lora.method=full with model.quantization=4bit",
        ),
    ],
)
def test_bad_space_is_one_line_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: str, told: str
) -> None:
    config = str(REPOSITORY / "jobs/configs/local.yaml")
    done = call(monkeypatch, tmp_path, "--config", config, "--set", f"storage.root={tmp_path} {overrides}")
    assert done.exit_code == 2
    assert told in done.error_line
    assert run_ids(Storage(str(tmp_path))) == []


def test_dry_run_tells_space_steps_and_resources(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = str(REPOSITORY / "jobs/configs/local.yaml")
    given = f"storage.root={tmp_path} model.source={tiny_model} data.source={tiny_data} data.held_out=0.2"
    done = call(monkeypatch, tmp_path, "--config", config, "--set", given, "--dry-run")
    assert done.exit_code == 0, done.err
    told = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert "0.0001 to 0.01, logarithmic" in told["train.learning rate"]
    assert "1, 2, 4 × lora.rank" in told["lora.alpha"]
    assert " 15 " in told["steps per trial"]
    assert " 60 at most" in told["steps in all"]
    assert "evaluation 1 of 8" in told["rungs"]
    assert run_ids(Storage(str(tmp_path))) == []
