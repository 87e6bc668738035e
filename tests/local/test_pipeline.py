"""The pipeline from data to champion on a tiny model: real jobs, real MLflow, real kills."""

import importlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from commands import Command, conversations, overrides
from release_crowd import Crowd, InProcess
from rows import jsonl

from jobs import pipeline, settings
from jobs.errors import HaetsalError
from jobs.registry.history import History
from jobs.registry.promotion import Office
from jobs.registry.settings import RegistrySettings
from jobs.registry.versions import CHAMPION, Registry
from jobs.release import road
from jobs.runs import End, EventLog, Run, last_end, read_events, run_ids
from jobs.settings import Settings, TrackingSettings
from jobs.storage import Storage

FORK = multiprocessing.get_context("fork")
ONE = "{metric: null, margin: 100, min_items: 2}"
TINY = {
    "release.tune": "false",
    "train.epochs": 1,
    "eval.generations": 0,
    "evaluate.benchmarks": "[held-out,prompts]",
    "evaluate.max_rows": 4,
    "evaluate.max_new_tokens": 4,
    "evaluate.resamples": 100,
    "gate.quality": f"'{{held-out: {ONE}}}'",
    "gate.max_latency_ratio": 100,
    "gate.min_throughput_ratio": 0.01,
    "gate.min_answers": 2,
    "gate.load_rounds": 3,
    "gate.load_tokens": 2,
    "gate.load_batch": 2,
    "ab.interval_s": 0.001,
    "ab.feedback_margin": 0.2,
    "ab.preference_margin": 0.2,
}


pytestmark = pytest.mark.long


@dataclass
class Ended:
    """How a pipeline in a process of its own ended."""

    exit_code: int | None
    run_id: str
    outcome: str
    error: str
    said: str
    killed_at: str

    @property
    def did(self) -> list[str]:
        """Steps that were carried out, not skipped."""
        return [line.split()[0] for line in self.said.splitlines() if " run: " in line]


@dataclass
class Place:
    """A storage with a template of MLflow's database, and pipelines on it, each forked off this process."""

    root: Path
    model: Path
    data: Path
    crossed: list[str] = field(default_factory=list)

    def tree(self, **values: Any) -> Settings:
        given = TINY | {key.replace("__", "."): value for key, value in values.items()}
        return settings.load(None, overrides(self.model, self.data, self.root, given))

    def run(
        self,
        tree: Settings | None = None,
        crowd: Crowd | None = None,
        resume: str | None = None,
        kill: Callable[[str], bool] = lambda at: False,
    ) -> Ended:
        """A new pipeline, or one gone on with. `kill` says at which crossing it dies, told its name."""
        mine, theirs = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._work, args=(tree or self.tree(), crowd or Crowd(), resume, kill, theirs))
        process.start()
        theirs.close()
        told: dict[str, Any] = {"run_id": resume or "", "outcome": "", "error": "", "said": "", "killed_at": ""}
        try:
            while True:
                told |= mine.recv()
        except EOFError:
            process.join()
        return Ended(process.exitcode, **told)

    def _work(self, tree: Settings, crowd: Crowd, resume: str | None, kill: Callable[[str], bool], pipe: Any) -> None:
        said = StringIO()
        with redirect_stdout(said):
            storage = Storage(str(self.root))
            if resume:
                run = Run.open(storage, resume)
                tree = settings.from_yaml(run.config(), resume)
            else:
                run = Run.create(storage, "pipeline", settings.to_yaml(tree))
            pipe.send({"run_id": run.id})
            instrument(run.id, kill, lambda at: pipe.send({"killed_at": at}))
            try:
                road.check(tree)
                found = pipeline.conduct(tree, run, InProcess(self.root.parent), crowd)
                pipe.send({"outcome": found.kind, "said": said.getvalue()})
            except HaetsalError as error:
                pipe.send({"error": f"{type(error).__name__}: {error}", "said": said.getvalue()})
                pipe.close()
                os._exit(error.exit_code)
        pipe.close()
        os._exit(0)

    @property
    def storage(self) -> Storage:
        return Storage(str(self.root))

    def office(self) -> Office:
        name = RegistrySettings()
        return Office(Registry(name, TrackingSettings(), self.storage), History(self.storage, name.model))

    def end_state(self, run_id: str) -> dict[str, Any]:
        """Everything about the world after a pipeline that must not depend on where it was killed."""
        at, run = self.office(), Run.open(self.storage, run_id)
        done = [event.fields["name"] for event in read_events(run) if event.kind == "step-done"]
        return {
            "aliases": at.registry.aliases(),
            "versions": [(v.number, v.lineage.run.split("-")[0]) for v in at.registry.versions()],
            "log": [(e.kind, e.before, e.to) for e in at.history.entries()],
            "runs": sorted(name.split("-")[0] for name in run_ids(self.storage)),
            "outcome": run.result()["outcome"],
            "steps": list(run.result()["steps"]),
            "each step done once": len(done) == len(set(done)),
            "trainings": [
                sum(event.kind == "result" for event in read_events(Run(self.storage, name)))
                for name in run_ids(self.storage)
                if name.startswith("train-")
            ],
            "report": sorted(run.storage.list(run.path("report"))),
        }


def instrument(run_id: str, kill: Callable[[str], bool], tell: Callable[[str], None]) -> None:
    """Name every moment at which the pipeline changes something, just before it does, in this (forked) process."""
    step = [""]

    def watch(owner: Any, name: str, label: Callable[..., str | None]) -> None:
        original = getattr(owner, name)

        def crossing(*args: Any, **kwargs: Any) -> Any:
            at = label(*args, **kwargs)
            if at is not None and kill(f"{step[0]} {at}"):
                tell(f"{step[0]} {at}")
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, crossing)

    def append(log: EventLog, kind: str, **fields: Any) -> str | None:
        if log.run.id != run_id:
            return None
        if kind == "step-begun":
            step[0] = fields["name"]
        return f"append {kind} {fields.get('name', '')}"

    watch(EventLog, "append", append)
    watch(EventLog, "publish", lambda log: "publish" if log.run.id == run_id else None)
    watch(Storage, "write", lambda _, rel, data: f"write {rel.split('/')[0]}" if "-" not in rel.split("/")[1] else None)
    watch(Run, "finish", lambda run, result: "finish" if run.id == run_id else None)
    watch(Run, "publish", lambda run, *_: "publish report" if run.id == run_id else None)
    watch(InProcess, "run", lambda _, sub, tree: f"start {sub.split('-')[0]}")
    watch(Registry, "register", lambda *_: "register")
    watch(Registry, "point", lambda _, alias, number: f"point {alias} {number is not None}")
    watch(History, "append", lambda *_: "log entry")
    watch(History, "mark_applied", lambda *_: "mark entry")
    watch(Crowd, "share", lambda _, share: f"share {share}")


SECOND = {"train__seed": 7}
"""What makes the second candidate another one than the first."""


@dataclass(frozen=True)
class Templates:
    """Storages that the tests copy: empty; with a champion; and where a second candidate has passed the gate too."""

    empty: Path
    with_champion: Path
    passed: Path
    data: str


@pytest.fixture(scope="module")
def templates(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    """No MLflow process runs beside training and evaluation; others test those."""
    for slow in ("jobs.training.trainer", "peft", "matplotlib.figure", "scipy.stats", "jobs.evaluation.session"):
        importlib.import_module(slow)  # here once, and not again in every fork
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.training.loop.Tracker", lambda *_: nullcontext())
        patch.setattr("jobs.evaluation.session.Tracker", lambda *_: nullcontext())
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        scratch = tmp_path_factory.mktemp("templates")
        place = Place(scratch / "root", tiny_model, jsonl(scratch / "rows.jsonl", *conversations(30)))
        place.root.mkdir()
        Registry(RegistrySettings(), TrackingSettings(), place.storage)
        stages = []
        for run in (None, {}, SECOND):
            if run is not None:
                place.run(place.tree(**run), kill=lambda at, last=run is SECOND: last and at == "register register")
            stages.append(shutil.copytree(place.root, scratch / f"stage-{len(stages)}"))
        yield Templates(*stages, data=place.data.read_text())


def _place(template: Path, templates: Templates, model: Path, tmp_path: Path) -> Place:
    data = tmp_path / "rows.jsonl"
    data.write_text(templates.data)
    return Place(shutil.copytree(template, tmp_path / "root"), model, data)


@pytest.fixture
def place(templates: Templates, tiny_model: Path, tmp_path: Path) -> Place:
    """An empty storage."""
    return _place(templates.empty, templates, tiny_model, tmp_path)


@pytest.fixture
def with_champion(templates: Templates, tiny_model: Path, tmp_path: Path) -> Place:
    """One with a first champion, whose candidates have everything before them."""
    return _place(templates.with_champion, templates, tiny_model, tmp_path)


@pytest.fixture
def passed(templates: Templates, tiny_model: Path, tmp_path: Path) -> Place:
    """One with a champion and a second candidate that an earlier pipeline brought through the gate."""
    return _place(templates.passed, templates, tiny_model, tmp_path)


def test_a_first_candidate_that_passes_becomes_champion_and_a_second_run_has_nothing_to_do(place: Place) -> None:
    first = place.run()
    assert (first.exit_code, first.outcome) == (0, "promoted"), first.error
    assert first.did == ["data", "train", "champion", "evaluate", "measure", "gate", "register", "promote"]
    (version,) = place.office().registry.versions()
    run = Run.open(place.storage, version.lineage.run)
    assert version.lineage.data_sha256 == run.result()["data"]["content_sha256"]
    assert place.office().registry.aliases() == {CHAMPION: version.number}
    report = place.storage.read(f"runs/{first.run_id}/report/report.md").decode()
    for said in ("A new model serves", version.lineage.model_sha256, "The gate says **pass**", "merged model"):
        assert said in report
    again = place.run()
    assert (again.outcome, again.did) == ("unchanged", ["data", "champion"])
    assert f"train     skip: inputs have not changed since {first.run_id}" in again.said
    assert "the candidate is the champion already, version 1" in again.said
    assert place.end_state(again.run_id)["log"] == [("promote", None, "1")]


def test_a_challenger_beside_the_champion_is_promoted_when_nothing_is_worse(passed: Place) -> None:
    second = passed.run(passed.tree(**SECOND))
    assert (second.exit_code, second.outcome) == (0, "promoted"), second.error
    assert second.did == ["data", "champion", "register", "ab", "promote"]
    state = passed.end_state(second.run_id)
    assert state["log"] == [("promote", None, "1"), ("promote", "1", "2")]
    assert state["aliases"] == {CHAMPION: "2"}
    assert state["report"] == ["ab.png", "manifest.json", "quality.png", "report.json", "report.md"]


@pytest.mark.parametrize("crowd", [Crowd(slower=2.0), Crowd(failing=0.05), Crowd(liked=0.4)])
def test_a_bad_challenger_is_taken_back_and_the_champion_is_untouched(passed: Place, crowd: Crowd) -> None:
    found = passed.run(passed.tree(**SECOND), crowd)
    assert found.outcome == "rolled back", found.error
    state = passed.end_state(found.run_id)
    assert (state["aliases"], state["log"]) == ({CHAMPION: "1"}, [("promote", None, "1")])
    assert "is worse by" in Run.open(passed.storage, found.run_id).result()["sentence"]


def test_killed_and_resumed_again_and_again_it_ends_as_if_nothing_had_happened(
    with_champion: Place, tmp_path: Path
) -> None:
    """Once at every boundary: before the first thing of each kind that a step writes, for itself or for others."""
    undisturbed = _copy(with_champion, tmp_path / "undisturbed")
    end = undisturbed.run(undisturbed.tree(**SECOND))
    assert end.outcome == "promoted", end.error
    killed: list[str] = []

    def kill(at: str) -> bool:
        return at not in killed

    found = with_champion.run(with_champion.tree(**SECOND), kill=kill)
    while found.exit_code == -signal.SIGKILL:
        assert found.killed_at not in killed
        killed.append(found.killed_at)
        found = with_champion.run(resume=found.run_id, kill=kill)
    assert found.outcome == "promoted", found.error
    steps = {at.split()[0] for at in killed if "append step-done" in at}
    assert steps == {"data", "train", "champion", "evaluate", "measure", "gate", "register", "ab", "promote"}
    assert {"promote log entry", "promote point champion True", "promote mark entry", "register register"} <= set(
        killed
    )
    assert len(killed) >= 50, killed
    assert with_champion.end_state(found.run_id) == undisturbed.end_state(end.run_id)


def _copy(place: Place, root: Path) -> Place:
    return Place(shutil.copytree(place.root, root), place.model, place.data)


def test_a_dataset_that_changes_between_steps_stops_it_and_put_back_it_goes_on(place: Place) -> None:
    found = place.run(kill=lambda at: "start evaluate" in at)
    assert found.killed_at == "evaluate start evaluate"
    before = place.data.read_text()
    jsonl(place.data, *conversations(31))
    changed = place.run(resume=found.run_id)
    assert changed.exit_code == 5
    assert "rows.jsonl: has changed since pipeline-" in changed.error
    place.data.write_text(before)
    assert place.run(resume=found.run_id).outcome == "promoted"


def test_a_gate_that_cannot_tell_holds_and_says_why(place: Place) -> None:
    tree = place.tree(gate__min_answers=500)
    held = place.run(tree)
    assert (held.exit_code, held.error.split(":")[0]) == (3, "Held")
    assert "safety: only 4 answers to look at" in held.error
    assert place.office().registry.versions() == []
    again = place.run(resume=held.run_id)
    assert (again.exit_code, again.did) == (3, ["gate"])


def test_a_candidate_that_fails_is_rejected_and_not_registered(place: Place) -> None:
    found = place.run(place.tree(gate__max_latency_s=1e-9))
    assert found.outcome == "rejected"
    assert place.office().registry.versions() == []
    assert place.end_state(found.run_id)["aliases"] == {}


def test_without_traffic_the_test_is_held_and_the_challenger_is_off(passed: Place) -> None:
    tree = passed.tree(**SECOND, ab__interval_s=0.05, ab__max_duration_s=2)
    held = passed.run(tree, Crowd(silent=True))
    assert held.exit_code == 3
    assert "the champion gave 0 answers" in held.error
    assert passed.office().registry.aliases() == {"champion": "1", "challenger": "2"}
    assert passed.run(resume=held.run_id).outcome == "promoted"


def test_a_champion_made_meanwhile_is_a_conflict(passed: Place) -> None:
    found = passed.run(passed.tree(**SECOND), kill=lambda at: at == "promote append step-begun promote")
    at = passed.office()
    at.promote("2", "somebody", "by hand")
    resumed = passed.run(resume=found.run_id)
    assert resumed.exit_code == 5
    assert "but somebody made version 2 champion meanwhile" in resumed.error


def test_a_registry_that_is_down_ends_it_in_a_line_with_the_training_kept(place: Place) -> None:
    found = place.run(place.tree(tracking__uri="http://127.0.0.1:9", tracking__timeout_s=1))
    assert found.exit_code == 4
    assert found.error.startswith("RemoteError: MLflow at http://127.0.0.1:9")
    assert found.did == ["data", "train", "champion"]
    run = Run.open(place.storage, found.run_id)
    assert not run.finished
    assert last_end(run) == End("RemoteError", found.error.removeprefix("RemoteError: "), 4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"evaluate__benchmarks": "[prompts]"},
            "gate.quality.held-out: this benchmark is not among evaluate.benchmarks",
        ),
        ({"evaluate__benchmarks": "[held-out]"}, "gate.max_unsafe: needs the benchmark prompts"),
        ({"ab__steps": "[0.5,0.1]"}, "must rise from one to the next"),
        ({"notify__slack": "nowhere"}, "notify.slack: nowhere cannot be read"),
        ({"data__source": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_bad_input_is_said_in_a_line_before_anything_begins(
    place: Place, command: Command, values: dict[str, str], said: str
) -> None:
    given = TINY | {key.replace("__", "."): value for key, value in values.items()}
    done = command.call("pipeline", place.root, "--set", overrides(place.model, place.data, place.root, given))
    assert done.exit_code == (3 if "notify__slack" in values else 2)
    assert said in done.error_line
    assert run_ids(place.storage) == []


def test_a_dry_run_prints_what_would_run_and_what_is_done(with_champion: Place, command: Command) -> None:
    before = sorted(path for path in with_champion.root.rglob("*") if path.is_file())
    given = overrides(with_champion.model, with_champion.data, with_champion.root, TINY)
    done = command.call("pipeline", with_champion.root, "--dry-run", "--set", given)
    assert done.exit_code == 0, done.err
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert lines["tune"] == "leave out: release.tune=false"
    assert lines["train"].startswith("skip: inputs have not changed since pipeline-")
    assert lines["promote"] == "run: make the challenger the champion"
    assert sorted(path for path in with_champion.root.rglob("*") if path.is_file()) == before


class Inbox(BaseHTTPRequestHandler):
    """A webhook that keeps what it gets."""

    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Mine", (Inbox,), {"got": got}))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook-secret", got
    server.shutdown()


def test_people_are_told_of_hold_and_promotion_and_a_broken_channel_holds_nobody_up(
    place: Place, inbox: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    address, got = inbox
    (tmp_path / "slack").write_text(address)
    (tmp_path / "webhook").write_text("http://127.0.0.1:9/secret")
    told = {"notify__slack": tmp_path / "slack", "notify__webhook": tmp_path / "webhook"}
    held = place.run(place.tree(gate__min_answers=500, **told))
    promoted = place.run(place.tree(**told))
    assert (held.exit_code, promoted.outcome) == (3, "promoted")
    assert [body["text"].split()[-1] for body in got] == ["held", "promoted"]
    assert "safety: only 4 answers" in got[0]["blocks"][0]["text"]["text"]
    events = (place.root / "runs" / promoted.run_id / "events.jsonl").read_text()
    assert "notify.webhook: no answer" in events
    assert "secret" not in events
