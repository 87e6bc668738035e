"""Bad input: one clear line, the documented exit code, no traceback, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import REPOSITORY, Command, conversations, overrides
from rows import jsonl

from jobs.runs import run_ids
from jobs.storage import Storage

pytestmark = pytest.mark.usefixtures("untracked")


def broken_at_row_5(path: Path) -> Path:
    lines = jsonl(path, *conversations(20)).read_text().splitlines()
    lines[4] = lines[4][:-9]
    path.write_text("\n".join(lines))
    return path


def cp949(path: Path) -> Path:
    text = jsonl(path, *conversations(20)).read_text()
    path.write_bytes(text.encode("cp949"))
    return path


def without_answer(path: Path) -> Path:
    rows = conversations(20)
    rows[6]["messages"].pop()
    return jsonl(path, *rows)


def empty(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: path, "rows.jsonl: no such file or folder"),
        (empty, "rows.jsonl: the file is empty"),
        (broken_at_row_5, "rows.jsonl:5: broken JSON"),
        (cp949, "CP949"),
        (without_answer, "rows.jsonl:7: "),
        (lambda path: jsonl(path, *conversations(1)), "add others to hold out"),
    ],
)
def test_bad_data(command: Command, tmp_path: Path, make: Callable[[Path], Path], line: str) -> None:
    root = tmp_path / "root"
    done = command.train(root, data__source=make(tmp_path / "rows.jsonl"))

    assert done.exit_code == 2
    assert line in done.error_line
    assert not root.exists()


@pytest.mark.parametrize(
    ("values", "exit_code", "line"),
    [
        ({"train__learning_rat": 1}, 2, "train.learning_rat: unknown key; did you mean learning_rate?"),
        ({"lora__rank": 0}, 2, "lora.rank: should be greater than or equal to 1 (got 0)"),
        ({"model__source": "./no-such-folder"}, 2, "model.source: no-such-folder is not a folder"),
        ({"model__source": "package:no_such_package/x.gguf"}, 3, "package no_such_package is not installed"),
        ({"model__source": "package:json/x.gguf"}, 2, "the package json holds no file x.gguf"),
        ({"model__quantization": "4bit"}, 3, "needs a CUDA device"),
        ({"storage__root": "gs://bucket"}, 2, "unknown scheme gs://"),
        ({"storage__root": "/dev/null/haetsal"}, 3, "/dev/null/haetsal: cannot write"),
        ({"scaling__workers": (os.cpu_count() or 1) + 1}, 2, "lower scaling.workers"),
        ({"data__max_length": 16, "data__overlong": "drop"}, 2, "no training row is left"),
        ({"lora__target_modules": "[no_such_layer]"}, 2, "lora.target_modules: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_setting(command: Command, tmp_path: Path, values: dict[str, Any], exit_code: int, line: str) -> None:
    root = tmp_path / "root"
    done = command.train(root, **values)

    assert done.exit_code == exit_code, done.err
    assert line in done.error_line
    assert run_ids(Storage(str(root))) == []


def test_bad_setting_is_told_before_a_dry_run_too(command: Command, tmp_path: Path) -> None:
    done = command.train(tmp_path / "root", "--dry-run", lora__target_modules="[no_such_layer]")

    assert done.exit_code == 2
    assert "lora.target_modules: " in done.error_line


@pytest.mark.parametrize("damage", ["weights", "config", "tokenizer"])
def test_broken_model_folder(command: Command, tiny_model: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    file = {"weights": "model.safetensors", "config": "config.json", "tokenizer": "tokenizer.json"}[damage]
    os.truncate(broken / file, (broken / file).stat().st_size // 2)

    done = command.train(tmp_path / "root", model__source=broken)

    assert done.exit_code == 2, done.err
    assert str(broken) in done.error_line


def test_model_without_safetensors(command: Command, tiny_model: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_model, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")

    done = command.train(tmp_path / "root", model__source=pickled)

    assert done.exit_code == 2
    assert "pickled weights are not loaded" in done.error_line


def test_unknown_model_on_a_hub_that_is_out_of_reach(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    done = command.train(tmp_path / "root", model__source="someone/no-such-model")

    assert done.exit_code == 3
    assert "someone/no-such-model is not in the local cache" in done.error_line


@pytest.mark.parametrize("name", ["train", "chat", "export"])
def test_unknown_run(command: Command, tmp_path: Path, name: str) -> None:
    option = "--resume" if name == "train" else "--run"
    done = command.call(name, tmp_path, "--set", f"storage.root={tmp_path}", option, "train-20990101-000000-abcd")

    assert done.exit_code == 2
    assert "no run 'train-20990101-000000-abcd'; there are no runs yet" in done.error_line
    assert list(tmp_path.iterdir()) == []


def test_resume_takes_no_other_settings(command: Command, tmp_path: Path) -> None:
    done = command.train(tmp_path, "--resume", "train-20990101-000000-abcd")

    assert done.exit_code == 2
    assert "give no CONFIG and no SET but storage.root" in done.error_line


def test_unfinished_run_has_nothing_to_chat_with(command: Command, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.create("runs/train-20260101-000000-abcd/config.yaml", b"{}")

    where = ("--set", f"storage.root={tmp_path}", "--run", "train-20260101-000000-abcd")
    done = command.call("chat", tmp_path, *where)

    assert done.exit_code == 2
    assert "did not finish" in done.error_line


def test_no_port_to_be_had(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    # A network namespace of its own has a loopback device that is down: no address, so no port.
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make a network namespace")
    root = tmp_path / "root"
    settings = overrides(tiny_model, tiny_data, root, {"scaling.workers": 1})
    command = ["unshare", "-n", sys.executable, "-m", "jobs.train", "--set", settings]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200)

    assert done.returncode == 3, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "no port can be opened" in errors[0]
    assert not root.exists()
    assert "Traceback" not in done.stderr


def test_config_file_that_is_not_there(command: Command, tmp_path: Path) -> None:
    done = command.call("train", tmp_path, "--config", str(tmp_path / "no.yaml"))

    assert done.exit_code == 2
    assert done.error_line == f"error: {tmp_path}/no.yaml: no such config file"
