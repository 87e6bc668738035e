"""`make preprocess`: raw Korean text to a training set, with a datasheet of what was dropped and why.

    python -m jobs.preprocess --input texts/ --output corpus          # for `make train SET=data.source=corpus`
    python -m jobs.preprocess --input s3://bucket/raw '*.jsonl.zst' --output s3://bucket/corpus
    python -m jobs.preprocess --input texts/ --output corpus --dry-run
    python -m jobs.preprocess --resume preprocess-20261122-101500-3fa9

OUTPUT appears as a whole, or not at all. The run directory <storage.root>/runs/<run-id>/ gets config, events, report
and, last, result.json; what it needs meanwhile lies in work/ there and is deleted at the end.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from jobs import begin, cli, models, settings
from jobs.corpus import contamination, pipeline
from jobs.corpus.product import Output
from jobs.corpus.progress import StageDisplay
from jobs.corpus.sources import Source, find, groups
from jobs.costs import month
from jobs.errors import HaetsalError, UsageError
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--input", nargs="+", metavar="ADDRESS", help="files, folders, globs or s3://… to read")
    options.add_argument("--output", metavar="ADDRESS", help="folder or s3://… to publish the training set to")
    options.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    begin.add_options(options)
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    given = {"source": arguments.input, "output": arguments.output}
    if any(given.values()):
        corpus = tree.corpus.model_dump(mode="json") | {name: value for name, value in given.items() if value}
        tree = settings.from_tree(tree.model_dump(mode="json") | {"corpus": corpus}, "INPUT, OUTPUT")
    storage = Storage(tree.storage.root)
    named = begin.named_run("preprocess", arguments, tree)
    if named:
        run, tree = named
    else:
        output, sources = _check(tree)
        if arguments.dry_run:
            print(_plan(tree, sources, output))
            return
        output.check_writable()
        models.resolve(tree.model)
        storage.check_writable()
        month.check(tree, storage)
        run = Run.create(storage, "preprocess", settings.to_yaml(tree))
    print(f"run {run.id}\n  {run.address()}", flush=True)
    _summarise(run, preprocess(tree, run), tree.data.held_out)


def preprocess(tree: Settings, run: Run) -> dict[str, Any]:
    """Prepare the corpus of `tree`, write the run's `result.json` and return what is in it.

    Raises the HaetsalError that ended the run otherwise. A run that bad input ended is deleted, any other can go on.
    """
    try:
        with run.lock():
            with StageDisplay() as display:
                result = pipeline.prepare(tree, run, display.ended)
            run.finish(result)
            return result
    except UsageError:
        run.discard()
        raise
    except HaetsalError:
        print(f"go on with: make preprocess RESUME={run.id}", file=sys.stderr)
        raise


def _check(tree: Settings) -> tuple[Output, list[Source]]:
    """Find what is wrong before a run is made."""
    corpus = tree.corpus
    if not corpus.source or not corpus.output:
        missing = "INPUT" if not corpus.source else "OUTPUT"
        raise UsageError(f"{missing} is not given: make preprocess INPUT=<files or folder> OUTPUT=<folder>")
    output, sources = Output(corpus.output), find(corpus.source)
    output.check(sources)
    contamination.read(corpus.evaluation, corpus.evaluation_overlap_syllables)
    return output, sources


def _plan(tree: Settings, sources: list[Source], output: Output) -> str:
    corpus, workers = tree.corpus, tree.scaling.workers
    kinds = Counter(source.kind + (f" ({source.compression})" if source.compression else "") for source in sources)
    size = sum(source.size_bytes for source in sources)
    rows = (
        ("input", f"{len(sources):,} files, {size / 1e6:,.1f} MB: {', '.join(f'{n:,} {k}' for k, n in kinds.items())}"),
        ("read by", f"{len(groups(sources)):,} tasks, into shards of {corpus.shard_characters:,} characters"),
        ("workers", f"{workers} on Ray" if workers else "none, in this process (scaling.workers=0)"),
        ("near duplicates", f"from an estimated similarity of {corpus.near_duplicate_similarity:g} on"),
        (
            "kept clear of",
            f"{', '.join(corpus.evaluation) or 'nothing'} ({corpus.evaluation_overlap_syllables} syllables)",
        ),
        ("held out", f"{tree.data.held_out:.0%} of the rows, by a hash of their content (data.held_out)"),
        ("tokenizer", tree.model.source),
        ("output", output.address),
        ("meanwhile", Storage(tree.storage.root).address("runs/preprocess-<time>/work")),
    )
    return "\n".join(f"{name:16} {value}" for name, value in rows)


def _summarise(run: Run, result: dict[str, Any], held_out: float) -> None:
    kept = sum(result["rows"].values())
    dropped = ", ".join(f"{rule} {count:,}" for rule, count in list(result["rows_dropped"].items())[:5]) or "nothing"
    print(
        f"{kept:,} of {result['rows_read']:,} rows kept ({result['rows']['train']:,} train, "
        f"{result['rows']['held_out']:,} held out); dropped most: {dropped}"
    )
    if result["files_quarantined"]:
        print(f"{result['files_quarantined']:,} of {result['files']:,} files put aside; see the datasheet")
    print(
        f"  training set  {result['output']}\n"
        f"  datasheet     {run.address('report/datasheet.md')}\n"
        f'  train on it with: make train SET="data.source={result["output"]} data.held_out={held_out:g}"'
    )


if __name__ == "__main__":
    cli.main(main)
