"""`make pipeline`: tune, train, evaluate, gate, register, A/B, promote or roll back, as one run that can be resumed.

    python -m jobs.pipeline --config my.yaml
    python -m jobs.pipeline --config my.yaml --dry-run      # which steps would run, and which are done already
    python -m jobs.pipeline --resume pipeline-20261122-101500-3fa9

It joins the other jobs, each with a run of its own. Killed anywhere and resumed, it comes to the same end. Exit code 0:
there is a new champion, or the candidate is the champion already; 5: the candidate was rejected by the gate or lost the
A/B test; 3: held, because what was seen does not suffice to tell.
"""

from __future__ import annotations

import sys

from jobs import begin, cli, settings
from jobs.costs import month
from jobs.errors import HaetsalError, IntegrityError, Interrupted
from jobs.registry.history import History
from jobs.registry.promotion import Office
from jobs.registry.versions import Registry
from jobs.release import notify, report, road
from jobs.release.abtest import Held
from jobs.release.local import LocalServing, RayEngines
from jobs.release.machine import Machine, foresee
from jobs.release.notify import Notice
from jobs.release.outcome import Ending, ending
from jobs.release.road import Road, Workshop
from jobs.release.serving import Serving
from jobs.release.subjobs import Jobs, Processes
from jobs.runs import EventLog, Run, git_revision
from jobs.settings import Settings
from jobs.spans import Spans
from jobs.storage import Storage
from jobs.training import launch


class Rejected(IntegrityError):
    """The candidate is not to serve. Exit code 5."""


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--dry-run", action="store_true", help="print which steps would run, and stop")
    begin.add_options(options)
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    storage = Storage(tree.storage.root)
    named = begin.named_run("pipeline", arguments, tree)
    if named:
        run, tree = named
    else:
        road.check(tree)
        launch.check_machine(tree)
        notify.check(tree.notify)
        if arguments.dry_run:
            _foresee(tree, storage)
            return
        storage.check_writable()
        month.check(tree, storage)
        run = Run.create(storage, "pipeline", settings.to_yaml(tree))
    print(f"run {run.id}\n  {run.address()}", flush=True)
    found = conduct(tree, run, Processes(), LocalServing(tree, RayEngines(tree)))
    print(f"{found.kind}: {found.sentence}\n  report   {run.address('report/report.md')}")
    if found.kind in ("rejected", "rolled back"):
        raise Rejected(f"{run.id}: {found.sentence}")


def conduct(tree: Settings, run: Run, jobs: Jobs, servers: Serving) -> Ending:
    """Carry `run` to its end, write its report and `result.json`, and tell people.

    Raises Held if there is not enough to decide by, and whatever ended it otherwise; it stays resumable.
    """
    with run.lock(), EventLog(run) as events:
        events.append("config", settings=tree.model_dump(mode="json"), git_revision=git_revision())
        try:
            office = Office(
                Registry(tree.registry, tree.tracking, run.storage), History(run.storage, tree.registry.model)
            )
            machine = Machine(run.storage, events, lambda line: print(line, flush=True), Spans("haetsal-pipeline"))
            done = machine.carry_out(Road(tree, run, Workshop(events, office, jobs, servers)).steps())
        except KeyboardInterrupt:
            _stopped(tree, run, events, Interrupted("stopped by the user"))
            raise Interrupted("stopped; what was done is kept") from None
        except HaetsalError as error:
            _stopped(tree, run, events, error)
            raise
        found = ending(done)
        report.publish(tree, run, events, done, found, office)
        _tell(tree, run, events, found)
        events.append("result", outcome=found.kind, champion=found.champion)
        run.finish({"outcome": found.kind, "sentence": found.sentence, "champion": found.champion, "steps": done})
        return found


def _stopped(tree: Settings, run: Run, events: EventLog, error: HaetsalError) -> None:
    print(f"go on with: make pipeline RESUME={run.id}", file=sys.stderr)
    if not isinstance(error, Interrupted):
        kind, what = ("hold", "held") if isinstance(error, Held) else ("failure", "failed")
        _send(tree, events, Notice(kind, run.id, f"{run.id} {what}", str(error), run.address()))  # type: ignore[arg-type]
    events.append("failed", type=type(error).__name__, reason=str(error), exit_code=error.exit_code)


def _tell(tree: Settings, run: Run, events: EventLog, found: Ending) -> None:
    kinds = {"promoted": "promotion", "rolled back": "roll back", "rejected": "rejection"}
    if found.kind in kinds and not any(event.kind == "told" for event in events.read()):
        where = run.address("report/report.md")
        _send(tree, events, Notice(kinds[found.kind], run.id, f"{run.id}: {found.kind}", found.sentence, where))  # type: ignore[arg-type]
        events.append("told", outcome=found.kind)


def _send(tree: Settings, events: EventLog, notice: Notice) -> None:
    for problem in notify.tell(notice, tree.notify, events):
        print(f"warning: {problem}; the pipeline goes on", file=sys.stderr)


def _foresee(tree: Settings, storage: Storage) -> None:
    for decision in foresee(Road(tree, Run(storage, "pipeline-dry-run")).steps(), storage):
        print(f"{decision.step.name:<9} {decision.verb}: {decision.reason}")


if __name__ == "__main__":
    cli.main(main)
