"""Steps as data: what is skipped, what is done again, what a resumed run takes over."""

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import RemoteError
from jobs.release.machine import BEGUN, DONE, Machine, Output, Outputs, Step, foresee
from jobs.runs import EventLog, Run
from jobs.spans import Spans
from jobs.storage import Storage


class Workbench:
    """Two steps of which the second depends on the first, and how often each was done."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(str(root))
        self.setting = 1
        self.done: list[str] = []
        self.gone: set[str] = set()
        self.fail_in = ""

    def steps(self, **second: Any) -> list[Step]:
        def effect(name: str) -> Any:
            def do(outputs: Outputs) -> Output:
                if self.fail_in == name:
                    raise RemoteError(f"{name} is away")
                self.done.append(name)
                return {"value": f"{name}-{self.setting}"}

            return do

        def check(output: Output) -> str | None:
            return f"{output['value']} is gone" if output["value"] in self.gone else None

        return [
            Step("one", "do one", lambda outputs: {"setting": self.setting}, effect("one"), check),
            Step("two", "do two", lambda outputs: dict(outputs["one"]), effect("two"), check, **second),
        ]

    def new_run(self) -> Run:
        return Run.create(self.storage, "pipeline", "{}\n")

    def work(self, run: Run, **second: Any) -> tuple[dict[str, Output], list[str]]:
        """Outputs, and what was said."""
        said: list[str] = []
        self.done = []
        with run.lock(), EventLog(run) as events:
            return Machine(self.storage, events, said.append, Spans("test")).carry_out(self.steps(**second)), said


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def test_steps_run_in_order_and_a_finished_one_is_never_repeated(bench: Workbench) -> None:
    run = bench.new_run()
    outputs, _ = bench.work(run)
    assert bench.done == ["one", "two"]
    assert bench.work(run) == (outputs, ["one       skip: was done", "two       skip: was done"])
    assert bench.done == []


def test_another_run_takes_over_what_has_not_changed_and_says_from_where(bench: Workbench) -> None:
    first = bench.new_run()
    outputs, _ = bench.work(first)
    again, said = bench.work(bench.new_run())
    assert again == outputs
    assert bench.done == []
    assert said == [f"{name:<9} skip: inputs have not changed since {first.id}" for name in ("one", "two")]


def test_a_changed_input_runs_its_step_and_those_that_depend_on_its_output(bench: Workbench) -> None:
    bench.work(bench.new_run())
    bench.setting = 2
    bench.work(bench.new_run())
    assert bench.done == ["one", "two"]
    bench.setting = 1
    bench.work(bench.new_run())
    assert bench.done == []


def test_a_step_that_changes_the_world_is_done_by_every_run_once(bench: Workbench) -> None:
    bench.work(bench.new_run(), reusable=False)
    run = bench.new_run()
    bench.work(run, reusable=False)
    assert bench.done == ["two"]
    bench.work(run, reusable=False)
    assert bench.done == []


def test_a_failed_step_is_begun_again_and_the_ones_before_are_not(bench: Workbench) -> None:
    run = bench.new_run()
    bench.fail_in = "two"
    with pytest.raises(RemoteError):
        bench.work(run)
    bench.fail_in = ""
    _, said = bench.work(run)
    assert bench.done == ["two"]
    assert said == ["one       skip: was done", "two       run: do two"]
    with run.lock(), EventLog(run) as events:
        kinds = [(event.kind, event.fields["name"]) for event in events.read()]
    assert kinds == [(BEGUN, "one"), (DONE, "one"), (BEGUN, "two"), (BEGUN, "two"), (DONE, "two")]


def test_what_a_step_left_and_somebody_deleted_is_made_again(bench: Workbench) -> None:
    run = bench.new_run()
    bench.work(run)
    bench.gone = {"one-1"}
    _, said = bench.work(run)
    assert bench.done == ["one"]  # its output is the same, so the second step's inputs are
    assert said[0] == "one       run: do one, again, because one-1 is gone"


def test_a_step_that_is_not_needed_is_left_out_with_its_reason(bench: Workbench) -> None:
    outputs, said = bench.work(bench.new_run(), not_needed=lambda outputs: "nobody asked")
    assert list(outputs) == ["one"]
    assert said[1] == "two       leave out: nobody asked"


def test_a_dry_run_says_what_would_run_and_changes_nothing(bench: Workbench, tmp_path: Path) -> None:
    assert [d.verb for d in foresee(bench.steps(), bench.storage)] == ["run", "run"]
    assert bench.done == []
    assert list(tmp_path.iterdir()) == []
    bench.work(bench.new_run())
    assert [d.verb for d in foresee(bench.steps(), bench.storage)] == ["skip", "skip"]
    bench.setting = 2
    assert [d.verb for d in foresee(bench.steps(), bench.storage)] == ["run", "run"]
