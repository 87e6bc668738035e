"""`make preprocess` as a user runs it: real files in, a training set out, and what it survives."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pyarrow.parquet
import pytest
import yaml
import zstandard
from commands import Command, Done, Started, kinds
from korean import paragraphs, texts
from rows import jsonl, read

from jobs.manifest import verify_manifest
from jobs.runs import Run, read_events, run_ids
from jobs.storage import Storage

SMALL = {"corpus.shard_characters": 4000, "corpus.tokenizer_rows": 50}
"""A shard of about sixteen rows."""


@pytest.fixture
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow process beside the run; `test_everything_in_one_run` has one."""
    monkeypatch.setattr("jobs.corpus.pipeline.Tracker", lambda *_: nullcontext())


def arguments(model: Path, root: Path | str, source: Path | str, output: Path | str, **values: Any) -> list[str]:
    given = {"model.source": model, "storage.root": root, "data.held_out": 0.2} | SMALL
    given |= {key.replace("__", "."): value for key, value in values.items()}
    options = " ".join(f"{key}={value}" for key, value in given.items())
    return ["--input", str(source), "--output", str(output), "--set", options]


@pytest.fixture
def preprocess(command: Command, tmp_path: Path) -> Callable[..., Done]:
    """Runs `jobs.preprocess` in this process under small shards."""

    def call(source: Path | str, output: Path | str, *more: str, **values: Any) -> Done:
        root = values.pop("storage__root", tmp_path / "root")
        return command.call("preprocess", root, *arguments(command.model, root, source, output, **values), *more)

    return call


def product(folder: Path) -> dict[str, bytes]:
    """All bytes of a published training set, by name; checks the manifest on the way."""
    verify_manifest(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path, side: str = "*", layout: str = "text") -> list[Any]:
    """The content of all rows."""
    files = sorted(folder.glob(f"{side}/{layout}-*.parquet"))
    return [row[layout] for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]


def card(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "corpus.yaml").read_text(encoding="utf-8"))["figures"])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with every kind of file and every kind of trouble."""
    folder = tmp_path / "raw"
    folder.mkdir()
    unlike = texts(60, seed=11)
    (folder / "a.txt").write_bytes("\n\n".join(unlike[:6]).encode("cp949"))
    jsonl(
        folder / "b.jsonl",
        *({"text": text} for text in unlike[6:16]),
        {"text": f"{unlike[6]}!"},
        {"text": "짧은 글 010-9876-5432"},
    )
    (folder / "c.jsonl.gz").write_bytes(gzip.compress((folder / "b.jsonl").read_bytes()))  # all repeated
    (folder / "d.html").write_bytes(f"<html><body><p>{unlike[20]}</p></body></html>".encode("utf-16"))
    chats = [
        {"instruction": f"{number}번째로 무엇을 알려 줄까요?", "output": text}
        for number, text in enumerate(unlike[30:40])
    ]
    (folder / "e.jsonl.zst").write_bytes(
        zstandard.ZstdCompressor().compress("".join(json.dumps(row) + "\n" for row in chats).encode())
    )
    exam = json.loads(
        (Path(__file__).parents[2] / "jobs/data/eval/prompts_ko.jsonl").read_text("utf-8").splitlines()[0]
    )
    jsonl(
        folder / "f.jsonl", {"text": f"{exam['reference']} {unlike[41]}"}, {"text": f"{unlike[42]} 전화 010-2345-6789."}
    )
    (folder / "g.txt.zst").write_bytes(zstandard.ZstdCompressor().compress("\n\n".join(unlike).encode())[:-20])
    (folder / "h.parquet").write_bytes(b"PAR1 no more")
    (folder / "i.txt").write_bytes(bytes(range(128, 256)) * 10)
    jsonl(folder / "j.jsonl", {"title": "no text"})
    return folder


def test_everything_in_one_run(preprocess: Callable[..., Done], command: Command, mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / "corpus"

    done = preprocess(mixed, output, tracking__timeout_s=60)

    assert done.exit_code == 0, done.err
    assert {name.rpartition(".")[2] for name in product(output)} == {"parquet", "json", "yaml", "tsv", "md", "png"}
    figures = card(output)
    assert (figures["files"], figures["files_quarantined"]) == (10, 4)
    sheet = (output / "datasheet.md").read_text(encoding="utf-8")
    for reason in (
        "damaged: Truncated",
        "damaged: Parquet",
        "is not UTF-8 or CP949",
        "columns title fit no known format",
    ):
        assert reason in sheet
    dropped = figures["rows_dropped"]
    assert (dropped["exact_duplicate"], dropped["evaluation_overlap"], dropped["too_short"]) == (12, 1, 2)
    assert "prompts_ko.jsonl | 1 | 1" in sheet
    assert figures["rows"]["train"] + figures["rows"]["held_out"] == figures["rows_read"] - sum(dropped.values())
    assert len(rows(output, layout="messages")) == 10
    everything = "\n".join(rows(output)) + sheet
    assert "010-2345-6789" not in everything and "010-9876-5432" not in everything
    assert figures["personal_data_masked"]["phone"] == 1
    with sqlite3.connect(tmp_path / "root/mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
        assert database.execute("select 1 from metrics where key = 'result/rows.train'").fetchall()
    assert (tmp_path / "root/mlartifacts").glob("*/artifacts/report/datasheet.md")
    assert not done.run.storage.exists(done.run.path("work"))

    # the training job reads it, with the sides that the preparation chose
    conversations = read(output)
    from jobs.dataset.split import split

    train, held_out = split(conversations, 0.2, "corpus")
    assert {row.text for row in held_out if row.text} == set(rows(output, "held_out"))
    assert len(train) == figures["rows"]["train"]
    trained = command.train(tmp_path / "root", data__source=output, train__max_steps=1, train__epochs=1)
    assert trained.exit_code == 0, trained.err


@pytest.mark.usefixtures("untracked")
def test_killed_run_goes_on_to_the_same_bytes(
    preprocess: Callable[..., Done], command: Command, tmp_path: Path
) -> None:
    source = jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in texts(250, seed=12)))
    undisturbed, output, root = tmp_path / "undisturbed", tmp_path / "corpus", tmp_path / "root"
    assert preprocess(source, undisturbed).exit_code == 0
    started = Started.job("preprocess", arguments(command.model, root, source, output), root)
    try:
        run = started.run()
        started.wait_for(lambda: len(cleaned(run)) >= 3)
        started.process.kill()
        assert started.process.wait() == -signal.SIGKILL
    finally:
        started.stop()
    shards = cleaned(run)[-1].fields["of"]
    before = len(cleaned(run))
    assert before < shards, "it was killed too late to prove anything"
    assert not run.finished and not output.exists()

    again = command.call("preprocess", root, "--set", f"storage.root={root}", "--resume", run.id)

    assert again.exit_code == 0, again.err
    assert product(output) == product(undisturbed)
    after = len(cleaned(run)) - before
    assert shards - before - 1 <= after <= shards - before, "shards that were done were done again"
    assert kinds(run).count("config") == 2
    refused = command.call("preprocess", root, "--set", f"storage.root={root}", "--resume", run.id)
    assert (refused.exit_code, refused.error_line) == (
        2,
        f"error: {run.id}: is finished; its report is at {run.address('report')}",
    )


def cleaned(run: Run) -> list[Any]:
    return [e for e in read_events(run) if e.kind == "shard" and e.fields["stage"] == "clean"]


@pytest.mark.long
@pytest.mark.usefixtures("untracked")
def test_s3_and_workers_one_of_which_dies_give_the_same_bytes(
    preprocess: Callable[..., Done], command: Command, tmp_path: Path, s3_server: str
) -> None:
    shards = {"corpus__shard_characters": 30_000}
    raw = tmp_path / "raw"
    raw.mkdir()
    jsonl(raw / "a.jsonl", *({"text": text} for text in texts(500, seed=13)))
    (raw / "b.txt.gz").write_bytes(gzip.compress("\n\n".join(texts(20, seed=14)).encode("cp949")))
    local = tmp_path / "local"
    assert preprocess(raw, local, **shards).exit_code == 0
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{raw}/", f"{s3_server}/raw/", recursive=True)
    remote = arguments(
        command.model, f"{s3_server}/haetsal", f"{s3_server}/raw", f"{s3_server}/corpus", **shards, scaling__workers=2
    )

    started = Started.job("preprocess", remote, tmp_path)
    try:
        started.wait_for(lambda: bool(at_work(started)), every_s=0.1)
        victim = at_work(started)[0]
        victim.kill()
        done = started.finish()
    finally:
        started.stop()

    assert done.exit_code == 0, done.err
    assert not victim.is_running()
    fetched = tmp_path / "fetched"
    Storage(s3_server).fetch_tree("corpus", fetched)
    assert product(fetched) == product(local)
    assert len(read(f"{s3_server}/corpus")) == len(read(local))
    (run_id,) = run_ids(Storage(f"{s3_server}/haetsal"))
    run = Run.open(Storage(f"{s3_server}/haetsal"), run_id)
    assert run.finished
    assert not run.storage.exists(run.path("work"))


def at_work(started: Started) -> list[psutil.Process]:
    """Ray's workers that run a task of ours at this moment, by the title that Ray gives them."""
    children = psutil.Process(started.process.pid).children(recursive=True)
    return [process for process in children if titled(process).startswith("ray::Map")]


def titled(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.usefixtures("untracked")
def test_doing_it_again_replaces_the_output_with_the_same_bytes(
    preprocess: Callable[..., Done], tmp_path: Path, mixed: Path
) -> None:
    output = tmp_path / "corpus"
    assert preprocess(mixed, output).exit_code == 0
    first = product(output)
    moved = mixed.rename(tmp_path / "elsewhere")
    assert preprocess(moved, output).exit_code == 0
    assert product(output) == first


@pytest.mark.usefixtures("untracked")
def test_a_full_disk_leaves_nothing_and_the_run_can_go_on(
    preprocess: Callable[..., Done], command: Command, tmp_path: Path, small_disk: Path
) -> None:
    source = jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in texts(60, seed=14)))
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (2**20 - 40_000))

    done = preprocess(source, small_disk / "corpus")

    assert done.exit_code == 3
    assert "the disk is full" in done.error_line
    assert list(small_disk.iterdir()) == [filler]
    run = done.run
    filler.unlink()
    root = tmp_path / "root"
    again = command.call("preprocess", root, "--set", f"storage.root={root}", "--resume", run.id)
    assert again.exit_code == 0, again.err
    assert product(small_disk / "corpus")


@pytest.mark.usefixtures("untracked")
def test_ctrl_c_stops_with_the_way_to_go_on(
    preprocess: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in texts(20, seed=16)))
    monkeypatch.setattr("jobs.corpus.progress.StageDisplay.ended", lambda *_: signal.raise_signal(signal.SIGINT))
    # What is started in the background ignores Ctrl-C, tests included.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = preprocess(source, tmp_path / "corpus")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.exit_code == 130
    assert f"go on with: make preprocess RESUME={done.run.id}" in done.err
    assert kinds(done.run)[-1] == "failed"
    assert not (tmp_path / "corpus").exists()


@pytest.mark.usefixtures("untracked")
def test_input_that_changed_is_not_gone_on_with(
    preprocess: Callable[..., Done], command: Command, tmp_path: Path, small_disk: Path
) -> None:
    source = jsonl(tmp_path / "raw.jsonl", *({"text": text} for text in texts(20, seed=14)))
    (small_disk / "filler").write_bytes(b"x" * (2**20 - 30_000))
    done = preprocess(source, small_disk / "corpus")
    assert done.exit_code == 3
    jsonl(source, {"text": texts(1, seed=15)[0]})
    root = tmp_path / "root"
    again = command.call("preprocess", root, "--set", f"storage.root={root}", "--resume", done.run.id)
    assert again.exit_code == 2
    assert "are not those that it began with" in again.error_line


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "raw"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no data files; those end in .txt"),
        ({"a.txt": b""}, "no row could be read: 1 of 1 files were put aside, the first is a.txt: holds no rows"),
        ({"a.txt.gz": b"x"}, "a.txt.gz: damaged: "),
        ({"a.txt": "짧다\n".encode()}, "nothing is left of 1 rows: too_short took 1 (for one, a.txt:1: "),
        ({"a.jsonl": b"{\n{\n"}, "nothing is left of 2 rows: unreadable_row took 2 (for one, a.jsonl:1: broken JSON"),
    ],
)
def test_a_corpus_of_nothing_is_one_clear_line(
    preprocess: Callable[..., Done], tmp_path: Path, files: Path, content: dict[str, bytes], message: str
) -> None:
    for name, data in content.items():
        (files / name).write_bytes(data)
    done = preprocess(files, tmp_path / "corpus")
    assert done.exit_code == 2
    assert message in done.error_line
    assert not (tmp_path / "corpus").exists()
    assert run_ids(Storage(str(tmp_path / "root"))) == []


def test_what_is_refused_before_a_run_is_made(preprocess: Callable[..., Done], tmp_path: Path, files: Path) -> None:
    (files / "a.txt").write_text(paragraphs()[0], encoding="utf-8")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.doc").write_bytes(b"x")
    for source, output, message in (
        (files, precious, "was not made by preprocess"),
        (files, files, "holds the input file"),
        (files, "s3://bucket", "name a folder below it"),
        (tmp_path / "nothing", tmp_path / "out", "no such file or folder"),
        ("gopher://x", tmp_path / "out", "unknown scheme gopher://"),
    ):
        done = preprocess(source, output)
        assert done.exit_code == 2
        assert message in done.error_line
    evaluation = preprocess(files, tmp_path / "out", corpus__evaluation=f"[{tmp_path}/none.jsonl]")
    assert (evaluation.exit_code, "none.jsonl" in evaluation.error_line) == (2, True)
    assert (precious / "thesis.doc").exists()
    assert not (tmp_path / "root").exists()


def test_the_plan(preprocess: Callable[..., Done], tmp_path: Path, mixed: Path) -> None:
    done = preprocess(mixed, tmp_path / "corpus", "--dry-run")
    assert done.exit_code == 0
    assert "10 files" in done.out and "1 .jsonl (gzip)" in done.out and str(tmp_path / "corpus") in done.out
    assert not (tmp_path / "corpus").exists() and not (tmp_path / "root").exists()
