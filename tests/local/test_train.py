"""Training on one machine, from the command line to what lies in the run directory."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from commands import Command, Done, checkpoint_steps, conversations, kinds, losses
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs import models
from jobs.dataset import build
from jobs.manifest import verify_manifest
from jobs.runs import Run, latest, read_events
from jobs.settings import from_yaml
from jobs.training.scoring import score

STEPS = 20


def digest(folder: Path) -> str:
    parts = (path.name.encode() + path.read_bytes() for path in sorted(folder.iterdir()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture(scope="module")
def base_digest(tiny_model: Path) -> str:
    return digest(tiny_model)


@pytest.fixture(scope="module")
def finished(
    tiny_model: Path, tiny_data: Path, base_digest: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    """One tracked run that many tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        done = Command(tiny_model, tiny_data, patch).train(tmp_path_factory.mktemp("root"), lora__dropout=0.1)
        assert done.exit_code == 0, done.err
        yield done


@pytest.fixture
def copied(finished: Done, tmp_path: Path) -> Done:
    """A copy of the finished run that a test may damage."""
    shutil.copytree(finished.root, tmp_path / "root")
    return Done(finished.exit_code, finished.out, finished.err, str(tmp_path / "root"))


def test_run_directory_holds_what_was_promised(finished: Done) -> None:
    run = finished.run
    folder = Path(run.address())

    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert visible == {
        "config.yaml", "events.jsonl", "checkpoints", "model", "report", "result.json", "tracking.json",
    }  # fmt: skip
    assert latest(run.storage) == latest(run.storage, "train") == run.id
    assert from_yaml(run.config(), "config").lora.dropout == 0.1
    assert run.address("report/report.md") in finished.out


def test_result_is_the_last_file_of_the_run(finished: Done) -> None:
    folder = Path(finished.run.address())
    shipped_later = {"tracking.json"}
    written = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name not in shipped_later}

    assert max(written, key=written.__getitem__) == folder / "result.json"


def test_result_agrees_with_events_and_data(finished: Done) -> None:
    run, result = finished.run, finished.run.result()
    events = read_events(run)

    assert result["steps"] == STEPS
    assert result["eval_loss"] < result["base_loss"]
    assert result["eval_perplexity"] == pytest.approx(math.exp(result["eval_loss"]))
    assert result["perplexity_reduction"] == pytest.approx(1 - result["eval_perplexity"] / result["base_perplexity"])
    assert result["tokens"] == 2 * result["data"]["train"]["tokens"]  # two epochs, padding not counted
    assert result["held_out_tokens"] == result["data"]["held_out"]["trained_tokens"]
    assert result["tokens_per_second"] > 0
    assert result["peak_memory_bytes"] > 50e6
    assert set(result["phase_seconds"]) == {"imports", "load", "data", "train", "compare", "save"}
    scores = {e.fields["step"]: e.fields["eval_loss"] for e in events if e.kind == "checkpoint"}
    assert list(scores) == [4, 8, 12, 16, 20]
    assert result["best_step"] == min(scores, key=scores.__getitem__)
    assert result["eval_loss"] == pytest.approx(min(scores.values()), abs=1e-4)


def test_events_tell_the_run_in_order(finished: Done) -> None:
    events = read_events(finished.run)

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].kind, events[-1].kind) == ("config", "result")
    curve = losses(finished.run)
    assert list(curve) == list(range(1, STEPS + 1))
    assert curve[STEPS] < curve[1]


def test_best_and_last_checkpoints_are_kept_whole(finished: Done) -> None:
    run = finished.run
    folders = sorted(Path(run.address("checkpoints")).iterdir())
    scores = {e.fields["step"]: e.fields["eval_loss"] for e in read_events(run) if e.kind == "checkpoint"}
    best_two = sorted(scores, key=scores.__getitem__)[:2]

    assert [int(folder.name.removeprefix("step-")) for folder in folders] == sorted({*best_two, STEPS})
    for folder in folders:
        verify_manifest(folder)
        assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {
            path.name for path in folder.iterdir()
        }


def test_report_compares_and_draws(finished: Done) -> None:
    folder = Path(finished.run.address("report"))
    verify_manifest(folder)
    content = json.loads((folder / "report.json").read_text())

    assert content["result"] == finished.run.result()
    assert len(content["answers"]) == 2
    asked = {row["messages"][0]["content"] for row in conversations(49)}
    assert {answer["prompt"] for answer in content["answers"]} <= asked
    text = (folder / "report.md").read_text()
    for figure in (content["result"]["base_loss"], content["result"]["eval_loss"]):
        assert f"{figure:.4f}" in text
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_mlflow_has_the_run(finished: Done) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished.root}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "haetsal"]
    (found,) = client.search_runs([experiment.experiment_id])

    assert found.info.status == "FINISHED"
    assert found.data.tags["haetsal.run"] == finished.run.id
    assert found.data.params["lora.dropout"] == "0.1"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert {m.step: m.value for m in history} == pytest.approx(losses(finished.run))
    assert {"report.md", "report.json", "loss.png"} <= {
        Path(a.path).name for a in client.list_artifacts(found.info.run_id, "report")
    }


def test_adapter_loads_with_peft_and_scores_what_the_result_says(
    finished: Done, tiny_model: Path, tiny_data: Path
) -> None:
    run = finished.run
    folder = Path(run.address("model"))
    verify_manifest(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = build(tokenizer, from_yaml(run.config(), "config").data)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = list(data.held_out)

    assert score(base, rows, 3, tokenizer.pad_token_id).loss == pytest.approx(run.result()["base_loss"], abs=1e-5)
    adapted = PeftModel.from_pretrained(base, folder)
    assert score(adapted, rows, 3, tokenizer.pad_token_id).loss == pytest.approx(run.result()["eval_loss"], abs=1e-5)


def test_base_model_is_untouched(finished: Done, tiny_model: Path, base_digest: str) -> None:
    assert digest(tiny_model) == base_digest
    assert finished.run.result()["base_model_sha256"] == models.identity(tiny_model)


def test_finished_run_is_not_resumed(finished: Done, command: Command) -> None:
    again = command.call("train", finished.root, "--set", f"storage.root={finished.root}", "--resume", finished.run.id)

    assert again.exit_code == 2
    assert "is finished" in again.error_line


def trained(run: Run) -> dict[str, Any]:
    return load_file(run.address("model") + "/adapter_model.safetensors")


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"lora__method": "dora"}, {"use_dora": True, "use_rslora": False}),
        ({"lora__rank_stabilized": "true", "lora__alpha": 8}, {"use_rslora": True, "lora_alpha": 8.0}),
        ({"lora__target_modules": "[q_proj,v_proj]"}, {"target_modules": ["q_proj", "v_proj"]}),
        ({"train__gradient_checkpointing": "true"}, {"r": 4}),
        ({"data__packing": "on"}, {"r": 4}),
    ],
)
def test_kinds_of_adapters(command: Command, tmp_path: Path, values: dict[str, Any], keys: dict[str, Any]) -> None:
    done = command.train(tmp_path, train__max_steps=4, eval__generations=0, **values)

    assert done.exit_code == 0, done.err
    config = json.loads(Path(done.run.address("model/adapter_config.json")).read_text())
    assert {key: sorted(config[key]) if isinstance(config[key], list) else config[key] for key in keys} == keys
    result = done.run.result()
    assert (result["steps"], result["best_step"]) == (4, 4)
    assert result["eval_loss"] < result["base_loss"]


@pytest.mark.usefixtures("untracked")
def test_full_fine_tuning_writes_all_weights(command: Command, tmp_path: Path, tiny_model: Path) -> None:
    done = command.train(tmp_path, lora__method="full", train__max_steps=4)

    assert done.exit_code == 0, done.err
    result = done.run.result()
    assert result["eval_loss"] < result["base_loss"]
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(done.run.address("model") + "/model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before if "proj" in name)
    said = command.call("export", tmp_path, "--set", f"storage.root={tmp_path}", "--output", str(tmp_path / "merged"))
    assert said.exit_code == 0, said.err


@pytest.mark.usefixtures("untracked")
def test_bfloat16_is_what_the_settings_say(command: Command, tmp_path: Path) -> None:
    done = command.train(tmp_path, model__dtype="bfloat16", train__max_steps=4)

    assert done.exit_code == 0, done.err
    assert done.run.result()["eval_loss"] < done.run.result()["base_loss"]
    merged = tmp_path / "merged"
    said = command.call("export", tmp_path, "--set", f"storage.root={tmp_path}", "--output", str(merged))
    assert said.exit_code == 0, said.err
    assert {tensor.dtype for tensor in load_file(merged / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.usefixtures("untracked")
def test_accumulated_small_batches_equal_one_large(command: Command, tmp_path: Path) -> None:
    large = command.train(tmp_path, train__batch_size=8, train__max_steps=5)
    small = command.train(tmp_path, train__batch_size=2, train__gradient_accumulation=4, train__max_steps=5)

    assert large.exit_code == small.exit_code == 0, small.err
    assert losses(small.run) == pytest.approx(losses(large.run), abs=1e-4)


@pytest.mark.usefixtures("untracked")
def test_same_seed_same_curve(command: Command, tmp_path: Path) -> None:
    one, same, other = (
        losses(command.train(tmp_path, train__max_steps=4, lora__dropout=0.2, train__seed=seed).run)
        for seed in (1, 1, 2)
    )

    assert one == same
    assert one != other


@pytest.mark.usefixtures("untracked")
def test_early_stopping_ends_before_the_plan(command: Command, tmp_path: Path) -> None:
    # From its second epoch on, this rate only makes the held-out loss worse.
    done = command.train(
        tmp_path,
        train__epochs=40,
        train__learning_rate=0.3,
        train__schedule="constant",
        train__checkpoint_every_steps=5,
        train__early_stopping_patience=2,
        train__max_loss_ratio=1000,
    )

    assert done.exit_code == 0, done.err
    result, run = done.run.result(), done.run
    assert result["steps"] < 400
    assert result["steps"] == checkpoint_steps(run)[-1] == result["best_step"] + 10
    scores = {e.fields["step"]: e.fields["eval_loss"] for e in read_events(run) if e.kind == "checkpoint"}
    assert result["eval_loss"] == pytest.approx(min(scores.values()), abs=1e-4)  # the best one was published


@pytest.mark.usefixtures("untracked")
def test_a_run_on_s3_is_the_same(command: Command, s3_server: str, tmp_path: Path) -> None:
    done = command.train(s3_server)

    assert done.exit_code == 0, done.err
    run = done.run
    assert set(run.storage.list(run.path())) == {
        "checkpoints", "config.yaml", "events.jsonl", "model", "owner.json", "report", "result.json",
    }  # fmt: skip
    assert len(run.storage.list(run.path("checkpoints"))) in (2, 3)
    assert kinds(run)[-1] == "result"
    said = command.call("export", s3_server, "--set", f"storage.root={s3_server}", "--output", str(tmp_path / "merged"))
    assert said.exit_code == 0, said.err


@pytest.mark.usefixtures("untracked")
def test_dry_run_writes_nothing_and_foresees_the_steps(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "root"
    uneven = {"train__batch_size": 3, "train__gradient_accumulation": 2, "train__epochs": 2.5}  # 40 rows: 7 steps each
    planned = command.train(root, "--dry-run", **uneven)

    assert planned.exit_code == 0, planned.err
    assert not root.exists()
    done = command.train(root, **uneven)
    assert done.exit_code == 0, done.err
    assert done.run.result()["steps"] == 18
    assert "\nsteps 18 " in "\n".join(" ".join(line.split()) for line in planned.out.splitlines())


def test_export_merges_without_changing_the_model(finished: Done, command: Command, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    where = ("--set", f"storage.root={finished.root}", "--output", str(target))

    said = command.call("export", finished.root, *where)

    assert said.exit_code == 0, said.err
    verify_manifest(target)
    run = finished.run
    tokenizer = AutoTokenizer.from_pretrained(target)
    merged = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    rows = list(build(tokenizer, from_yaml(run.config(), "config").data).held_out)
    assert score(merged, rows, 4, tokenizer.pad_token_id).loss == pytest.approx(run.result()["eval_loss"], abs=1e-4)

    again = command.call("export", finished.root, *where)
    assert again.exit_code == 2
    assert f"{target} exists already" in again.error_line


def test_export_refuses_a_merge_that_changes_the_model(
    finished: Done, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A merge that loses part of the adapter, as PEFT did for tied embeddings.
    from peft.tuners.lora import Linear

    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: torch.zeros_like(self.get_base_layer().weight))
    target = tmp_path / "merged"
    said = command.call("export", finished.root, "--set", f"storage.root={finished.root}", "--output", str(target))

    assert said.exit_code == 5
    assert "merged and unmerged logits differ" in said.error_line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["export", "chat"])
def test_damaged_adapter_is_refused(copied: Done, command: Command, name: str) -> None:
    file = Path(copied.run.address("model/adapter_model.safetensors"))
    weights = {key: tensor * 1.5 for key, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})

    said = command.call(name, copied.root, "--set", f"storage.root={copied.root}")

    assert said.exit_code == 5
    assert "adapter_model.safetensors: content does not match" in said.error_line


def test_adapter_on_another_base_is_refused(copied: Done, command: Command, tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    save_file({k: t + 0.01 for k, t in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    config = Path(copied.run.address("config.yaml"))
    config.write_text(config.read_text().replace(str(tiny_model), str(other)))

    said = command.call("chat", copied.root, "--set", f"storage.root={copied.root}")

    assert said.exit_code == 5
    assert "is not the base model that this adapter was trained on" in said.error_line


def test_chat_answers_what_comes_through_a_pipe(
    finished: Done, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.chat.MAX_NEW_TOKENS", 8)
    monkeypatch.setattr(sys, "stdin", io.StringIO("안녕하세요\n/new\n3 더하기 3은?\n"))

    said = command.call("chat", finished.root, "--set", f"storage.root={finished.root}")

    assert said.exit_code == 0, said.err
    assert finished.run.id in said.err
    assert said.out.strip()


@pytest.mark.long
def test_a_spent_budget_ends_a_run_at_its_next_checkpoint_for_good(command: Command, tmp_path: Path) -> None:
    done = command.train(tmp_path, cost__usd_per_hour__training=100_000, cost__run_budget_usd=0.01)
    assert done.exit_code == 3
    assert "of 0.01 USD (cost.run_budget_usd) are spent; its last checkpoint is kept" in done.error_line
    assert "make train RESUME" not in done.err
    assert checkpoint_steps(done.run) == [4], "the first checkpoint after it was spent"
    again = command.call("train", tmp_path, "--resume", done.run.id, "--set", f"storage.root={tmp_path}")
    assert again.exit_code == 3 and checkpoint_steps(done.run) == [4]

    refused = command.train(tmp_path, cost__usd_per_hour__training=1, cost__month_budget_usd=0.01)
    assert refused.exit_code == 3 and "(cost.month_budget_usd) are spent in" in refused.error_line
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [done.run.id], "no run was begun"


@pytest.mark.long
def test_what_a_run_cost_is_in_its_result_and_in_mlflow(command: Command, tmp_path: Path) -> None:
    done = command.train(tmp_path, cost__usd_per_hour__training=3600, train__epochs=1)
    assert done.exit_code == 0, done.err
    cost = done.run.result()["cost"]
    assert cost["usd"] == pytest.approx(cost["seconds"], abs=0.1)  # which is rounded to a tenth
    assert 0 < cost["idle_usd"] < cost["usd"] and cost["machines"] == 1
    assert cost["usd_per_million_tokens"] == pytest.approx(cost["usd"] / done.run.result()["tokens"] * 1e6, rel=0.01)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("haetsal").experiment_id])
    assert found.data.metrics["result/cost.usd"] == cost["usd"]
