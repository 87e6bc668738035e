"""`make train`: fine-tune a base model on Korean instructions, and report how it compares with the untouched base.

    python -m jobs.train                                   # the sample, on this machine
    python -m jobs.train --set "data.source=my.jsonl train.epochs=2"
    python -m jobs.train --dry-run                         # the plan, and nothing else
    python -m jobs.train --resume train-20261122-101500-3fa9
    python -m jobs.train --config run.yaml --run-id train-20261122-101500-3fa9   # what a cluster runs, again and again

The run directory <storage.root>/runs/<run-id>/ gets config, events, checkpoints, model, report and, last, result.json.
"""

from __future__ import annotations

import sys
from typing import Any

from jobs import begin, cli, models, settings
from jobs.costs import month
from jobs.dataset import build, check
from jobs.errors import BudgetSpent, Diverged, HaetsalError, UsageError
from jobs.run_lock import Superseded
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.training import checkpoints, launch, plan
from jobs.training.progress import ProgressDisplay


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    begin.add_options(options)
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    storage = Storage(tree.storage.root)
    named = begin.named_run("train", arguments, tree)
    if named:
        run, tree = named
    else:
        launch.check_machine(tree)
        check(tree.data)
        if arguments.dry_run:
            _plan(tree, storage.address("runs/train-<time>")).show()
            return
        models.resolve(tree.model)
        storage.check_writable()
        month.check(tree, storage)
        run = Run.create(storage, "train", settings.to_yaml(tree))
    print(f"run {run.id}\n  {run.address()}")
    try:
        result = train(tree, run)
    except UsageError:
        if not named and not checkpoints.steps(run):
            run.discard()  # bad input that only shows once the model is there leaves no run behind
        raise
    _summarise(run, result)


def train(tree: Settings, run: Run) -> dict[str, Any]:
    """Train `run` to its end, write its `result.json` and return what is in it.

    Raises the HaetsalError that ended the run otherwise; what was reached stays resumable.
    """
    with run.lock():
        try:
            start = launch.run_on_workers if tree.scaling.workers else launch.run_here
            with ProgressDisplay() as display:
                result = start(tree, run, display.point)
        except (UsageError, Diverged, Superseded, BudgetSpent):
            raise  # going on would end the same way
        except (HaetsalError, KeyboardInterrupt):
            print(f"go on with: make train RESUME={run.id}", file=sys.stderr)
            raise
        run.finish(result)
        return result


def _plan(tree: Settings, address: str) -> plan.Plan:
    folder = models.resolve(tree.model)
    tokenizer = models.read_tokenizer(tree.model, folder)
    return plan.make(tree, folder, build(tokenizer, tree.data), address)


def _summarise(run: Run, result: dict[str, Any]) -> None:
    print(
        f"held-out perplexity {result['base_perplexity']:.1f} -> {result['eval_perplexity']:.1f} "
        f"({result['perplexity_reduction']:.0%} lower), {result['steps']} steps, "
        f"{result['tokens_per_second']:.0f} tokens/s\n"
        f"  adapter  {run.address('model')}\n"
        f"  report   {run.address('report/report.md')}\n"
        f"  talk to it with `make chat`"
    )


if __name__ == "__main__":
    cli.main(main)
