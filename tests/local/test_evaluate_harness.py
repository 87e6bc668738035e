"""KoBEST through lm-evaluation-harness, on data in the layout of the hub, and what is said when data are away."""

from __future__ import annotations

import importlib.util
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from commands import Command, Done
from rows import jsonl

from jobs.evaluation.benchmark import Loaded
from jobs.evaluation.choices import encode
from jobs.evaluation.harness import Harness
from jobs.evaluation.likelihood import of_groups
from jobs.evaluation.settings import EvaluateSettings
from jobs.runs import run_ids
from jobs.storage import Storage

KOBEST: dict[str, list[dict[str, Any]]] = {
    "boolq": [
        {"paragraph": f"서울은 한강 옆에 있는 도시 {n}이다.", "question": "서울은 도시인가?", "label": n % 2}
        for n in range(6)
    ],
    "copa": [
        {
            "premise": f"비가 {n}시간 왔다.",
            "question": ("원인", "결과")[n % 2],
            "alternative_1": "길이 젖었다.",
            "alternative_2": "해가 떴다.",
            "label": n % 2,
        }
        for n in range(4)
    ],
    "hellaswag": [
        {
            "context": "밥을 지었다.",
            "ending_1": "먹었다.",
            "ending_2": "팔았다.",
            "ending_3": "갔다.",
            "ending_4": "잤다.",
            "label": n,
        }
        for n in range(4)
    ],
    "sentineg": [{"sentence": f"영화 {n}편이 좋았다.", "label": n % 2} for n in range(4)],
    "wic": [
        {"word": "배", "context_1": f"배를 {n}번 탔다.", "context_2": "배가 고프다.", "label": 0} for n in range(4)
    ],
}


def write(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> None:
    """A data set as the hub serves it: one folder per configuration, and a card that lists them."""
    card = "---\nconfigs:\n"
    for name, rows in parts.items():
        card += f"- config_name: {name}\n  data_files:\n"
        (folder / name).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            jsonl(folder / name / f"{split}.jsonl", *rows)
            card += f"  - split: {split}\n    path: {name}/{split}.jsonl\n"
    (folder / "README.md").write_text(f"{card}---\n")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for data, with the caches of the libraries in it."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (make harness)")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("jobs.evaluation.session.Tracker", lambda *_: nullcontext())
    return tmp_path


def evaluate(command: Command, root: Path, tiny_model: Path, **values: Any) -> Done:
    given = {f"evaluate.{key}": value for key, value in values.items()} | {
        "storage.root": root,
        "model.dtype": "float32",
        "evaluate.resamples": 200,
    }
    overrides = " ".join(f"{key}={value}" for key, value in given.items())
    return command.call("evaluate", root, "--set", overrides, "--run", str(tiny_model))


def test_all_of_kobest(command: Command, here: Path, tiny_model: Path) -> None:
    write(here / "kobest_v1", KOBEST)

    done = evaluate(command, here / "root", tiny_model, benchmarks="[kobest]", harness_data=here)

    assert done.exit_code == 0, done.err
    found = done.run.result()["benchmarks"]["kobest"]
    assert found["items"] == {"subject": 22}
    assert found["groups"].keys() == {f"kobest_{name}" for name in KOBEST}
    assert found["metrics"].keys() == {"acc", "acc_norm"}
    items = [json.loads(line) for line in (Path(done.run.address("items")) / "kobest-subject.jsonl").open()]
    right = [item["values"]["right"] for item in items]
    assert found["metrics"]["acc"]["subject"]["value"] == pytest.approx(sum(right) / len(right))


def test_the_harness_and_we_agree(here: Path) -> None:
    """Two implementations of one thing: batches of single rows there, a shared beginning here."""
    write(here / "kobest_v1", KOBEST)
    torch.manual_seed(3)
    tokenizer = tiny.tokenizer()
    loaded = Loaded("tiny", tiny.model(len(tokenizer)), tokenizer)
    benchmark = Harness("kobest", EvaluateSettings(harness_data=str(here), batch_size=3))

    theirs = benchmark.run(loaded, lambda *_: None)
    again = benchmark.run(loaded, lambda *_: None)

    boolq = [item for item in theirs if item.group == "kobest_boolq"]
    # The task's text ends with a space and the harness adds another, which both count as the answer's.
    groups = [
        encode(tokenizer, f"{row['paragraph']} 질문: {row['question']} 답변:", ["  아니오", "  예"])
        for row in KOBEST["boolq"]
    ]
    ours = of_groups(loaded.model, groups, 8, 0, lambda *_: None)
    for item, values in zip(boolq, ours, strict=True):
        assert item.detail["log_likelihoods"] == pytest.approx(values, abs=1e-3)
    assert again == theirs  # a second model gets the same task objects


def test_limit_is_spread_over_the_tasks(here: Path) -> None:
    write(here / "kobest_v1", KOBEST)

    assert len(Harness("kobest", EvaluateSettings(harness_data=str(here), max_rows=11))) == 11


def test_folder_that_is_not_there(command: Command, here: Path, tiny_model: Path) -> None:
    done = evaluate(command, here / "root", tiny_model, benchmarks="[haerae]", harness_data=here)

    assert done.exit_code == 3
    assert f"{here}/HAE_RAE_BENCH is not there; fetch it: hf download" in done.error_line
    assert run_ids(Storage(str(here / "root"))) == []


def test_folder_with_other_data(command: Command, here: Path, tiny_model: Path) -> None:
    write(here / "kobest_v1", {"boolq": KOBEST["boolq"]})

    done = evaluate(command, here / "root", tiny_model, benchmarks="[kobest]", harness_data=here)

    assert done.exit_code == 2
    assert "not the data that kobest needs: " in done.error_line
    assert "copa" in done.error_line


def test_hub_out_of_reach_is_told_at_once(
    command: Command, here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.tasks  # noqa: F401  (seconds, which are not what is measured)

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    started = time.monotonic()
    done = evaluate(command, here / "root", tiny_model, benchmarks="[kmmlu]")

    assert done.exit_code == 3, done.err
    assert "the hub does not answer" in done.error_line
    assert "hf download --repo-type dataset HAERAE-HUB/KMMLU" in done.error_line
    assert time.monotonic() - started < 30
    assert run_ids(Storage(str(here / "root"))) == []


@pytest.mark.parametrize("name", ["kmmlu-cot", "kobest"])
def test_harness_not_installed(
    command: Command, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module == "lm_eval" else find_spec(module))

    done = evaluate(command, tmp_path / "root", tiny_model, benchmarks=f"[{name}]")

    assert done.exit_code == 3
    assert "run `make harness`" in done.error_line
    assert not (tmp_path / "root").exists()
