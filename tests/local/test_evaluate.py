"""Evaluation from the command line to what lies in the run directory, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import peft
import pytest
import tiny
import torch
from commands import Command, Done, kinds
from transformers import AutoModelForCausalLM

from jobs import models
from jobs.evaluation.prompts import Prompts
from jobs.manifest import verify_manifest
from jobs.runs import read_events, run_ids
from jobs.storage import Storage

SMALL = {
    "model.dtype": "float32",
    "evaluate.max_length": 96,
    "evaluate.max_new_tokens": 4,
    "evaluate.resamples": 200,
}


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """A training run whose adapter is evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.training.loop.Tracker", lambda *_: nullcontext())
        done = Command(tiny_model, tiny_data, patch).train(tmp_path_factory.mktemp("root"), eval__generations=0)
        assert done.exit_code == 0, done.err
        yield done


@pytest.fixture
def root(trained: Done, tmp_path: Path) -> Path:
    """A copy of the training run's storage."""
    shutil.copytree(trained.root, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def untracked_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow process beside the run; the first test has one that is looked at."""
    monkeypatch.setattr("jobs.evaluation.session.Tracker", lambda *_: nullcontext())


def evaluate(command: Command, root: Path, *arguments: str, **values: Any) -> Done:
    given = SMALL | {f"evaluate.{key}": value for key, value in values.items()} | {"storage.root": root}
    overrides = " ".join(f"{key}={value}" for key, value in given.items())
    return command.call("evaluate", root, "--set", overrides, *arguments)


def evaluations(root: Path) -> list[str]:
    return [name for name in run_ids(Storage(str(root))) if name.startswith("evaluate-")]


def report(done: Done) -> dict[str, Any]:
    assert done.exit_code == 0, done.err
    found: dict[str, Any] = json.loads(done.run.storage.read(done.run.path("report", "report.json")))
    return found


def test_adapter_against_its_base(command: Command, root: Path, trained: Done, tiny_model: Path) -> None:
    done = evaluate(command, root, max_rows=6)

    found = report(done)
    folder = done.run.storage.local_path(done.run.path("report"))
    verify_manifest(folder)
    assert {file.name for file in folder.iterdir()} == {"manifest.json", "report.json", "report.md", "comparison.png"}
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert done.run.result() == found
    # Every figure can be traced to what it was made from.
    assert found["models"]["subject"]["name"] == trained.run.id
    assert found["models"]["subject"]["base_sha256"] == models.identity(tiny_model)
    adapter = trained.run.storage.local_path(trained.run.path("model"))
    assert found["models"]["subject"]["adapter_sha256"] == models.identity(adapter)
    questions = Path("jobs/data/eval/choices_ko.jsonl")
    assert found["inputs"]["choices"][str(questions)] == hashlib.sha256(questions.read_bytes()).hexdigest()
    assert found["versions"]["peft"] == peft.__version__
    for event in read_events(done.run):
        if event.kind == "benchmark":
            items = done.run.storage.read(
                done.run.path("items", f"{event.fields['name']}-{event.fields['side']}.jsonl")
            )
            assert event.fields["items_sha256"] == hashlib.sha256(items).hexdigest()
    text = (folder / "report.md").read_text()
    assert found["verdict"] in text
    assert found["inputs"]["choices"][str(questions)] in text
    # And it is in MLflow.
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    (logged,) = [r for r in client.search_runs(["1"]) if r.info.run_name == done.run.id]
    assert logged.info.status == "FINISHED"
    value = found["benchmarks"]["choices"]["metrics"]["acc"]["subject"]["value"]
    assert logged.data.metrics["result/benchmarks.choices.metrics.acc.subject.value"] == value
    assert {a.path for a in client.list_artifacts(logged.info.run_id, "report")} >= {"report/comparison.png"}


@pytest.mark.usefixtures("untracked_evaluation")
class TestUntracked:
    def test_held_out_loss_is_what_training_reported(
        self, command: Command, root: Path, trained: Done, tiny_model: Path
    ) -> None:
        found, result = report(evaluate(command, root, benchmarks="[held-out]")), trained.run.result()

        loss = found["benchmarks"]["held-out"]["metrics"]["loss"]
        assert loss["subject"]["value"] == pytest.approx(result["eval_loss"], rel=1e-4)
        assert loss["against"]["value"] == pytest.approx(result["base_loss"], rel=1e-4)
        assert loss["difference"]["high"] < 0
        assert found["verdict"].startswith(f"{trained.run.id} against {tiny_model} (untouched): better on held-out")

    def test_stopped_and_resumed(self, command: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Prompts, "run", interrupted)
            stopped = evaluate(command, root, max_rows=6)
        assert stopped.exit_code == 130, stopped.err
        assert f"make evaluate RESUME={stopped.run.id}" in stopped.err
        assert not stopped.run.finished
        assert not stopped.run.storage.exists(stopped.run.path("report"))
        kept = stopped.run.storage.list(stopped.run.path("items"))
        assert kept == ["choices-subject.jsonl", "held-out-subject.jsonl"]

        where = ("--set", f"storage.root={root}", "--resume", stopped.run.id)
        resumed = command.call("evaluate", root, *where)

        assert resumed.exit_code == 0, resumed.err
        assert resumed.run.id == stopped.run.id
        measured = [(e.fields["name"], e.fields["side"]) for e in read_events(resumed.run) if e.kind == "benchmark"]
        assert len(measured) == len(set(measured)) == 6
        assert kinds(resumed.run)[-1] == "result"
        once_more = command.call("evaluate", root, *where)
        assert (once_more.exit_code, "is finished" in once_more.error_line) == (2, True)

    def test_records_that_were_changed_are_not_taken(
        self, command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("jobs.evaluation.report.publish", _no_space)
            stopped = evaluate(command, root, benchmarks="[choices]", max_rows=3)
        assert stopped.exit_code == 3, stopped.err
        run = stopped.run
        good = run.storage.read(run.path("items", "choices-subject.jsonl"))
        run.storage.write(run.path("items", "choices-subject.jsonl"), good.replace(b'"right": 0.0', b'"right": 1.0'))

        resumed = command.call("evaluate", root, "--set", f"storage.root={root}", "--resume", run.id)

        assert resumed.exit_code == 0, resumed.err
        assert run.storage.read(run.path("items", "choices-subject.jsonl")) == good
        assert kinds(run).count("benchmark") == 3

    def test_models_with_different_tokenizers(self, command: Command, root: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        tokenizer = tiny.tokenizer(tiny.HEADERS)
        tokenizer.add_tokens(["대한민국", "더하기"])
        torch.manual_seed(9)
        tiny.model(len(tokenizer)).save_pretrained(other)
        tokenizer.save_pretrained(other)

        found = report(evaluate(command, root, "--against", str(other), benchmarks="[held-out]"))

        metrics = found["benchmarks"]["held-out"]["metrics"]
        assert "difference" in metrics["bits_per_byte"]
        assert "difference" not in metrics["loss"]
        assert "difference" not in metrics["perplexity"]
        assert found["models"]["against"]["name"] == str(other)

    def test_base_alone_on_rows_of_its_own(self, command: Command, tiny_model: Path, tmp_path: Path) -> None:
        text = tmp_path / "text.txt"
        text.write_text("오늘 저녁에는 김치찌개를 끓여 보려고 합니다.\n")

        done = evaluate(command, tmp_path / "root", "--run", str(tiny_model), benchmarks="[held-out]", held_out=text)

        found = report(done)
        assert found["benchmarks"]["held-out"]["metrics"].keys() == {"bits_per_byte", "loss", "perplexity"}
        assert found["inputs"]["held-out"].keys() == {str(text)}
        assert found["models"].keys() == {"subject"}
        assert "with AGAINST= a second one" in done.out

    def test_adapter_by_its_address_on_s3(self, command: Command, root: Path, trained: Done, s3_server: str) -> None:
        Storage(s3_server).upload_tree(trained.run.storage.local_path(trained.run.path("model")), "copy")

        done = evaluate(command, root, "--run", f"{s3_server}/copy", benchmarks="[choices]", max_rows=3)

        models_ = report(done)["models"]
        assert models_["subject"]["name"] == f"{s3_server}/copy"
        adapter = trained.run.storage.local_path(trained.run.path("model"))
        assert models_["subject"]["adapter_sha256"] == models.identity(adapter)
        assert models_["against"]["name"].endswith("(untouched)")

    def test_plan_writes_nothing(self, command: Command, root: Path) -> None:
        done = evaluate(command, root, "--dry-run")

        assert done.exit_code == 0, done.err
        assert "180 items" in done.out
        assert "--- prompts" in done.out
        assert evaluations(root) == []

    def test_weights_that_are_not_numbers(self, command: Command, root: Path, tiny_model: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(tiny_model, broken)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        model.model.norm.weight.data[3] = float("nan")
        model.save_pretrained(broken)

        done = evaluate(command, root, "--run", str(broken), benchmarks="[prompts]", max_rows=1)

        assert done.exit_code == 5
        assert f"{broken}: its logits are not finite" in done.error_line
        assert kinds(done.run)[-1] == "failed"
        assert not done.run.finished
        assert not done.run.storage.exists(done.run.path("report"))

    def test_tokenizer_of_another_model(self, command: Command, root: Path, tiny_model: Path, tmp_path: Path) -> None:
        mixed = tmp_path / "mixed"
        shutil.copytree(tiny_model, mixed)
        tokenizer = tiny.tokenizer()
        tokenizer.add_tokens(["하나", "둘"])
        tokenizer.save_pretrained(mixed)

        done = evaluate(command, root, "--run", str(mixed), benchmarks="[choices]", max_rows=1)

        assert done.exit_code == 2
        assert "it is another model's" in done.error_line
        assert evaluations(root) == []

    @pytest.mark.parametrize(
        ("arguments", "values", "exit_code", "line"),
        [
            (
                ("--run", "train-20990101-000000-abcd"),
                {},
                2,
                "no run 'train-20990101-000000-abcd'; did you mean train-",
            ),
            (("--run", "./no-such-folder"), {}, 2, "no-such-folder is not a folder"),
            (("--against", "package:no_such_package/x.gguf"), {}, 3, "package no_such_package is not installed"),
            ((), {"benchmarks": "[choises]"}, 2, "unknown benchmark 'choises'; did you mean choices?"),
            ((), {"choices": "jobs/data/eval/prompts_ko.jsonl"}, 2, "prompts_ko.jsonl:1: "),
            ((), {"held_out": "no.jsonl"}, 2, "no.jsonl: no such file or folder"),
            ((), {"confidence": 1}, 2, "evaluate.confidence: should be less than 1"),
            ((), {"batch_siz": 1}, 2, "evaluate.batch_siz: unknown key; did you mean batch_size?"),
            ((), {"max_length": 16, "benchmarks": "[held-out]"}, 2, "every held-out row is longer than 16 tokens"),
        ],
    )
    def test_bad_input(
        self,
        command: Command,
        root: Path,
        arguments: tuple[str, ...],
        values: dict[str, Any],
        exit_code: int,
        line: str,
    ) -> None:
        done = evaluate(command, root, *arguments, **values)

        assert done.exit_code == exit_code, done.err
        assert line in done.error_line
        assert evaluations(root) == []

    def test_nothing_trained_yet(self, command: Command, tmp_path: Path) -> None:
        done = evaluate(command, tmp_path / "root")

        assert done.exit_code == 2
        assert "no train run has finished yet" in done.error_line


def _no_space(*_: Any) -> None:
    from jobs.storage_errors import StorageError

    raise StorageError("report: the disk is full")
