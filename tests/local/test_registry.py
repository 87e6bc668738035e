"""Champions: the promotion log, its compare-and-set, MLflow's aliases beside it. MLflow and its database are real."""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from jobs.errors import IntegrityError, RemoteError, UsageError
from jobs.manifest import write_manifest
from jobs.registry.history import Conflict, Entry, History, before_champion
from jobs.registry.promotion import Office, Serving
from jobs.registry.settings import RegistrySettings
from jobs.registry.versions import CHALLENGER, CHAMPION, Lineage, Registry, Version, model_sha256
from jobs.runs import Run
from jobs.settings import TrackingSettings
from jobs.storage import Storage

FORK = multiprocessing.get_context("fork")


def office(storage: Storage) -> Office:
    settings = RegistrySettings()
    return Office(Registry(settings, TrackingSettings(), storage), History(storage, settings.model))


def trained(storage: Storage, content: str, scratch: Path) -> Run:
    """A run with a published model of one file."""
    run = Run.create(storage, "train", "{}\n")
    folder = scratch / run.id
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text(content)
    run.publish(folder, "model")
    return run


def registered(at: Office, content: str, scratch: Path) -> Version:
    run = trained(at.registry.storage, content, scratch)
    lineage = Lineage(run.id, model_sha256(run), "b" * 64, "d" * 64, "c" * 64, "revision", "evaluate-x")
    return at.registry.register(lineage)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database as it is made, which takes seconds; each test copies it."""
    root = tmp_path_factory.mktemp("registry")
    office(Storage(str(root)))
    return root / "mlflow.db"


@pytest.fixture
def at(template: Path, tmp_path: Path) -> Iterator[Office]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "mlflow.db").write_bytes(template.read_bytes())
    yield office(Storage(str(root)))


@pytest.fixture
def versions(at: Office, tmp_path: Path) -> list[str]:
    """Numbers of three versions."""
    return [registered(at, content, tmp_path / "models").number for content in ("one", "two", "three")]


def test_registering_the_same_model_again_gives_the_same_version(at: Office, tmp_path: Path) -> None:
    first = registered(at, "same", tmp_path)
    again = at.registry.register(first.lineage)
    assert again == first
    assert at.registry.versions() == [first]
    assert first.lineage.run.startswith("train-")


def test_promotions_and_rollbacks_move_the_alias_and_stay_in_the_log(at: Office, versions: list[str]) -> None:
    one, two, three = versions
    at.registry.point(CHALLENGER, one)
    at.promote(one, "ann", "first")
    assert at.registry.aliases() == {CHAMPION: one}  # a champion challenges nobody
    at.promote(two, "ann", "better")
    at.promote(three, "ben", "better still")
    assert at.roll_back("ben", "complaints").to == two
    assert at.roll_back("ben", "more complaints").to == one
    assert at.registry.aliases()[CHAMPION] == one
    at.promote(three, "ann", "repaired")
    assert before_champion(at.history.entries()) == one
    assert [(e.kind, e.before, e.to) for e in at.history.entries()] == [
        ("promote", None, one),
        ("promote", one, two),
        ("promote", two, three),
        ("rollback", three, two),
        ("rollback", two, one),
        ("promote", one, three),
    ]


def test_what_makes_no_sense_is_refused(at: Office, versions: list[str]) -> None:
    with pytest.raises(UsageError, match="no earlier champion"):
        at.roll_back("ann", "")
    at.promote(versions[0], "ann", "")
    with pytest.raises(UsageError, match="is the champion already"):
        at.promote(versions[0], "ann", "")
    with pytest.raises(UsageError, match="no earlier champion"):
        at.roll_back("ann", "")
    with pytest.raises(UsageError, match="has no version or alias 'winner'; aliases are champion and challenger"):
        at.promote("winner", "ann", "")
    with pytest.raises(UsageError, match="alias 'challenger' is not set"):
        at.registry.version(CHALLENGER)


def test_a_pipeline_promotes_once_however_often_it_asks(at: Office, versions: list[str]) -> None:
    seen = at.serving()
    first = at.promote(versions[0], "pipeline-1", "passed", expected=seen)
    assert at.promote(versions[0], "pipeline-1", "passed", expected=seen) == first
    assert len(at.history.entries()) == 1


def test_a_champion_that_changed_since_the_comparison_is_a_conflict(at: Office, versions: list[str]) -> None:
    seen = at.serving()
    at.promote(versions[0], "somebody", "")
    with pytest.raises(Conflict, match="but somebody made version 1 champion meanwhile"):
        at.promote(versions[1], "pipeline-1", "passed", expected=seen)
    assert at.serving() == Serving(versions[0], 1)


def _promote_at_once(root: str, version: str, who: str, barrier: Barrier, results: Any) -> None:
    mine = office(Storage(root))
    seen = mine.serving()
    barrier.wait()
    try:
        mine.promote(version, who, "", expected=seen)
        results.put((who, "won"))
    except Conflict as error:
        results.put((who, str(error)))


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(at: Office, versions: list[str]) -> None:
    barrier, results = FORK.Barrier(2), FORK.Queue()
    given = [(at.registry.storage.root, version, f"who-{version}", barrier, results) for version in versions[1:]]
    both = [FORK.Process(target=_promote_at_once, args=arguments) for arguments in given]
    for process in both:
        process.start()
    outcomes = dict(results.get(timeout=60) for _ in both)
    for process in both:
        process.join()
    (winner,) = [who for who, said in outcomes.items() if said == "won"]
    (loser,) = [who for who in outcomes if who != winner]
    assert winner in outcomes[loser]
    entries = at.history.entries()
    assert len(entries) == 1
    assert entries[0].by == winner
    assert at.registry.aliases() == {CHAMPION: entries[0].to}


def test_a_promotion_between_two_looks_is_no_alias_moved_by_hand(
    at: Office, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, read = at.serving(), History.entries

    def entries(history: History) -> list[Entry]:
        found = read(history)
        if not found:
            monkeypatch.undo()
            at.promote(versions[0], "other", "")
        return found

    monkeypatch.setattr(History, "entries", entries)
    with pytest.raises(Conflict, match="changed at the same time by other"):
        at.promote(versions[1], "pipeline-1", "passed", expected=seen)
    assert at.serving() == Serving(versions[0], 1)


def test_an_alias_moved_by_hand_is_reported_and_a_person_settles_it(at: Office, versions: list[str]) -> None:
    one, two, three = versions
    at.promote(one, "ann", "")
    at.registry.point(CHAMPION, two)  # what anybody can do in MLflow's own page
    for attempt in (at.serving, lambda: at.roll_back("ben", ""), lambda: at.promote(three, "ben", "")):
        with pytest.raises(Conflict, match=r"alias champion is at version 2, but the promotion log says 1"):
            attempt()
    assert at.registry.aliases()[CHAMPION] == two  # reported, not corrected
    at.promote(one, "ann", "put back")
    assert at.serving().champion == one
    at.registry.point(CHAMPION, two)
    at.promote(two, "ann", "keep it")
    assert at.serving() == Serving(two, 2)
    assert at.registry.aliases()[CHAMPION] == two


def _promote_and_die(root: str, version: str, point: str) -> None:
    mine = office(Storage(root))

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    owner: Any = History if point in ("append", "mark_applied") else Registry
    setattr(owner, point, die)
    mine.promote(version, "pipeline-1", "passed", expected=mine.serving())


@pytest.mark.parametrize("point", ["append", "point", "mark_applied"])
def test_a_promotion_killed_anywhere_is_finished_or_done_again(at: Office, versions: list[str], point: str) -> None:
    at.promote(versions[0], "ann", "")
    seen = at.serving()
    process = FORK.Process(target=_promote_and_die, args=(at.registry.storage.root, versions[1], point))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    at.promote(versions[1], "pipeline-1", "passed", expected=seen)
    assert at.serving() == Serving(versions[1], 2)
    assert at.registry.aliases()[CHAMPION] == versions[1]
    assert len(at.history.entries()) == 2


def test_whoever_comes_after_a_killed_promotion_finishes_it_first(at: Office, versions: list[str]) -> None:
    process = FORK.Process(target=_promote_and_die, args=(at.registry.storage.root, versions[0], "point"))
    process.start()
    process.join(60)
    assert at.registry.aliases() == {}
    assert at.serving() == Serving(versions[0], 1)
    assert at.registry.aliases() == {CHAMPION: versions[0]}


def test_files_that_are_not_what_was_registered_are_refused(at: Office, tmp_path: Path) -> None:
    version = registered(at, "good", tmp_path / "models")
    at.registry.fetch(version, tmp_path / "fetched")
    assert (tmp_path / "fetched/adapter_model.safetensors").read_text() == "good"
    folder = at.registry.storage.local_path(f"runs/{version.lineage.run}/model")
    (folder / "adapter_model.safetensors").write_text("evil")
    with pytest.raises(IntegrityError, match="does not match the sha256"):
        at.registry.fetch(version, tmp_path / "again")
    write_manifest(folder)  # an attacker makes the folder consistent
    with pytest.raises(IntegrityError, match="is not what haetsal version 1 was registered as"):
        at.registry.fetch(version, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_hole_in_the_log_is_an_integrity_error(at: Office, versions: list[str]) -> None:
    for version in versions:
        at.promote(version, "ann", "")
    at.registry.storage.delete_tree("registry/haetsal/promotions/000002.json")
    with pytest.raises(IntegrityError, match="entry 2 is missing"):
        at.serving()


def test_the_log_works_alike_on_s3(s3_server: str) -> None:
    log, rival = (History(Storage(s3_server), "haetsal") for _ in range(2))
    from jobs.registry.history import Entry

    def entry(by: str, number: int = 1) -> Entry:
        return Entry(number, "promote", None, "1", by, "", 0.0)

    log.append(entry("ann"))
    with pytest.raises(Conflict, match="at the same time by ann"):
        rival.append(entry("ben"))
    assert not rival.is_applied(entry("ann"))
    log.mark_applied(entry("ann"))
    assert rival.is_applied(entry("ann"))
    log.append(entry("ann", 2))
    assert [(found.number, found.by) for found in rival.entries()] == [(1, "ann"), (2, "ann")]


def test_a_registry_that_is_down_is_said_in_a_line(tmp_path: Path) -> None:
    settings = TrackingSettings(uri="http://127.0.0.1:9", timeout_s=1)
    away = Registry(RegistrySettings(), settings, Storage(str(tmp_path)))
    with pytest.raises(RemoteError, match=r"MLflow at http://127.0.0.1:9"):
        away.versions()


def test_commands(at: Office, versions: list[str], command: Command) -> None:
    root = at.registry.storage.root
    given = ("--set", f"storage.root={root}")

    def run(verb: str, *arguments: str) -> Any:
        return command.call("promote", root, verb, *given, *arguments)

    assert run("promote").error_line.startswith("error: which version?")
    done = run("promote", "--version", versions[0], "--reason", "first")
    assert (done.exit_code, done.out) == (0, "haetsal: champion is version 1 (it was none)\n")
    assert run("promote", "--version", "champion").exit_code == 2
    assert run("promote", "--version", "99").error_line.endswith("versions: 1, 2, 3")
    assert run("promote", "--version", versions[1]).exit_code == 0
    assert run("rollback").out == "haetsal: champion is version 1 (it was 2)\n"
    shown = run("registry").out
    assert "version 1  champion" in shown
    assert "rollback  2 -> 1" in shown
    at.registry.point(CHAMPION, versions[2])
    moved = run("registry")
    assert moved.exit_code == 5
    assert "moved by hand" in moved.error_line


def test_entries_are_plain_json(at: Office, versions: list[str]) -> None:
    at.promote(versions[0], "ann", "첫 모델")
    text = at.registry.storage.read("registry/haetsal/promotions/000001.json").decode()
    assert json.loads(text)["reason"] == "첫 모델"
