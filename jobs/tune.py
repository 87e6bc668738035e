"""`make tune`: search for the settings under which training ends with the lowest held-out loss.

    python -m jobs.tune --config jobs/configs/local.yaml
    python -m jobs.tune --config my.yaml --set "tune.samples=50 tune.time_budget_s=7200"
    python -m jobs.tune --config my.yaml --dry-run           # the space, steps and resources, and nothing else
    python -m jobs.tune --resume tune-20261122-101500-3fa9

The run directory <storage.root>/runs/<run-id>/ gets config, events, one directory per trial, the best trial's adapter,
`best.yaml`, report and, last, result.json. How the search works: README.md in jobs/tuning/.
"""

from __future__ import annotations

import sys

from jobs import begin, cli, models, settings
from jobs.costs import month
from jobs.dataset import check
from jobs.errors import HaetsalError, IntegrityError, UsageError
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.training import launch
from jobs.tuning import plan, report, space, study


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    begin.add_options(options)
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    storage = Storage(tree.storage.root)
    named = begin.named_run("tune", arguments, tree)
    if named:
        run, tree = named
    else:
        _check(tree)
        if arguments.dry_run:
            plan.make(tree, storage.address("runs/tune-<time>")).show()
            return
        models.resolve(tree.model)
        storage.check_writable()
        month.check(tree, storage)
        run = Run.create(storage, "tune", settings.to_yaml(tree))
    print(f"run {run.id}\n  {run.address()}")
    try:
        result = study.conduct(tree, run)
    except IntegrityError:
        raise  # going on would end the same way
    except (HaetsalError, KeyboardInterrupt):
        print(f"go on with: make tune RESUME={run.id}", file=sys.stderr)
        raise
    print(report.summary(run, result))


def _check(tree: Settings) -> None:
    """Everything that can be wrong before a study begins."""
    space.check(tree)
    if tree.scaling.workers > 1:
        raise UsageError(
            f"scaling.workers={tree.scaling.workers}: a trial trains in one process, and what is best for its batch "
            "would not be best for several workers' together; set scaling.workers=1 and raise tune.max_concurrent"
        )
    one_worker = tree.scaling.model_copy(update={"workers": 1})
    launch.check_machine(tree.model_copy(update={"scaling": one_worker}))  # a trial takes what a worker takes
    check(tree.data)


if __name__ == "__main__":
    cli.main(main)
