"""`make evaluate`: is the model better? The newest adapter against its untouched base, or any two models.

    python -m jobs.evaluate                                                     # held-out rows, questions, prompts
    python -m jobs.evaluate --run train-20261122-101500-3fa9 --against ./my-other-model
    python -m jobs.evaluate --set "evaluate.benchmarks=[held-out] evaluate.held_out=corpus.txt"
    python -m jobs.evaluate --dry-run                                           # the plan, and nothing else
    python -m jobs.evaluate --resume evaluate-20261122-111500-9c1e              # what is measured is not measured again

The run directory <storage.root>/runs/<run-id>/ gets config, events, items (what each model did on each question),
report and, last, result.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from jobs import begin, cli, settings
from jobs.costs import month
from jobs.errors import HaetsalError, UsageError
from jobs.evaluation import candidate, registry
from jobs.evaluation.benchmark import Benchmark
from jobs.evaluation.candidate import Candidate
from jobs.evaluation.session import ITEMS, Session
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.training.plan import Line, Plan


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--run", metavar="MODEL", help="model under test: run id, folder, hub id, s3://…, package:…")
    options.add_argument("--against", metavar="MODEL", help="second model; default: the untouched base of the first")
    options.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    begin.add_options(options)
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    storage = Storage(tree.storage.root)
    if arguments.resume and (arguments.run or arguments.against):
        raise UsageError("RESUME goes on under the run's own settings; give nothing beside it but storage.root")
    named = begin.named_run("evaluate", arguments, tree)
    if named:
        run, tree = named
        with _prepared(tree, storage) as prepared:
            _evaluate(prepared, run)
        return
    tree = _with_models(tree, arguments.run, arguments.against)
    with _prepared(tree, storage) as prepared:
        if arguments.dry_run:
            _plan(prepared, storage.address("runs/evaluate-<time>")).show()
            return
        storage.check_writable()
        month.check(tree, storage)
        # The model is resolved: a resumed run must not take one that was trained in between.
        tree = _with_models(tree, prepared.subject.name, arguments.against)
        _evaluate(replace(prepared, settings=tree), Run.create(storage, "evaluate", settings.to_yaml(tree)))


@dataclass(frozen=True)
class _Prepared:
    settings: Settings
    subject: Candidate
    against: Candidate | None
    benchmarks: list[Benchmark]


@contextmanager
def _prepared(tree: Settings, storage: Storage) -> Iterator[_Prepared]:
    """Both models found and all benchmarks read, before anything slow or lasting."""
    registry.check_names(tree.evaluate)
    with ExitStack() as stack:
        subject = stack.enter_context(candidate.find(storage, tree.evaluate.subject, tree))
        if tree.evaluate.against is not None:
            against: Candidate | None = stack.enter_context(candidate.find(storage, tree.evaluate.against, tree))
        else:
            against = subject.base
        yield _Prepared(tree, subject, against, registry.prepare(tree.evaluate, subject.data or tree.data))


def _evaluate(prepared: _Prepared, run: Run) -> None:
    print(f"run {run.id}\n  {run.address()}")
    session = Session(prepared.settings, run, prepared.subject, prepared.against, prepared.benchmarks)
    try:
        with run.lock():
            result, summary = session.evaluate()
            run.finish(result)
    except UsageError:
        if not run.storage.exists(run.path(ITEMS)):
            run.discard()  # bad input that only shows once the model is there leaves no run behind
        raise
    except HaetsalError:
        print(f"go on with: make evaluate RESUME={run.id}", file=sys.stderr)
        raise
    for section in summary.sections:
        row = section.rows[0]
        other = f", against {row.against.value:.4g}" if row.against else ""
        print(f"{section.name}: {row.metric.title} {row.subject.value:.4g}{other}")
    print(f"{summary.verdict}\n  report   {run.address('report/report.md')}")


def _with_models(tree: Settings, subject: str | None, against: str | None) -> Settings:
    given = {key: name for key, name in (("subject", subject), ("against", against)) if name}
    return tree.model_copy(update={"evaluate": tree.evaluate.model_copy(update=given)})


def _plan(prepared: _Prepared, address: str) -> Plan:
    lines = [
        Line("subject", prepared.subject.name, prepared.subject.name, "RUN or evaluate.subject"),
        Line("against", name := prepared.against.name if prepared.against else "nothing", name, "AGAINST"),
    ]
    for benchmark in prepared.benchmarks:
        lines.append(Line(benchmark.name, len(benchmark), f"{len(benchmark):,} items", ", ".join(benchmark.inputs)))
    lines.append(Line("output", address, address, "storage.root"))
    return Plan(tuple(lines), "\n\n".join(f"--- {b.name}\n{b.preview}" for b in prepared.benchmarks))


if __name__ == "__main__":
    cli.main(main)
