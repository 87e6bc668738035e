"""A run of `make preprocess` from its first file to the published training set.

    read ──▶ clean ──▶ duplicates ──▶ write ──▶ publish

`read`, `clean` and `write` run over shards, on workers if there are any; `duplicates` sees all shards at once, through
their keys. A resumed run passes over whatever is on record as done.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jobs import models
from jobs.corpus import contamination, datasheet, runner, stages, tables, tokens, work
from jobs.corpus.duplicates import Duplicates, Finder, Shard
from jobs.corpus.outcome import EXACT, NEAR, Outcome
from jobs.corpus.product import Output
from jobs.corpus.sources import Source, find, groups
from jobs.corpus.stages import CleanTask, ReadTask, WriteTask
from jobs.corpus.tally import Tally
from jobs.corpus.work import Work
from jobs.costs.spent import in_result
from jobs.errors import HaetsalError, Interrupted, UsageError
from jobs.runs import EventLog, Run, git_revision
from jobs.settings import Settings
from jobs.tracking import Tracker
from jobs.training.memory import peak_resident_bytes

_WORK = "work"
_PAIRS_QUOTED = 3
_QUOTED_CHARACTERS = 160

Show = Callable[[str, int, int], None]
"""Sees each task that ends: stage, tasks ended, tasks in all."""
Task = TypeVar("Task")


def prepare(settings: Settings, run: Run, show: Show) -> dict[str, Any]:
    """Prepare the corpus of `settings`; returns what goes into `result.json`. The run must be locked.

    Raises UsageError for a corpus of which nothing is left and for input that changed since the run began, and the
    errors of storage and workers; the reason goes on record first.
    """
    assert settings.corpus.output is not None
    with EventLog(run) as events, Tracker(settings.tracking, events):
        events.append("config", settings=settings.model_dump(mode="json"), git_revision=git_revision())
        try:
            result = _Preparation(settings, run, events, show).result()
        except (HaetsalError, KeyboardInterrupt) as error:
            cause = error if isinstance(error, HaetsalError) else Interrupted("stopped; what is done is kept")
            events.append("failed", type=type(cause).__name__, reason=str(cause))
            raise cause from None
        result |= in_result(settings, run.job, events.read())
        events.append("result", **result)
        return result


@dataclass
class _Preparation:
    """One pass through the stages, with what they share."""

    settings: Settings
    run: Run
    events: EventLog
    show: Show
    phases: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.here = Work(self.run.address(_WORK), self.settings)

    def result(self) -> dict[str, Any]:
        corpus = self.settings.corpus
        assert corpus.output is not None
        output = Output(corpus.output)
        sources = find(corpus.source)
        if 0 not in self.here.done("publish"):  # a publisher that was killed leaves an output that looks like nobody's
            output.check(sources)
        self._same_input(sources)
        with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch_name:
            scratch = Path(scratch_name)
            with runner.workers(self.settings.scaling):
                outcome = self._outcome(sources, scratch)
            with self._phase("publish"):
                documents = scratch / "documents"
                documents.mkdir()
                code = git_revision() or "unknown"
                datasheet.write(outcome, self.settings, code, documents)
                self.here.finish("publish", 0, {})
                output.publish(self.here, outcome.parts, documents)
                self.run.publish(documents, "report")
        self.here.storage.delete_tree("")
        return {
            "output": output.address,
            **outcome.figures(),
            "peak_memory_bytes": peak_resident_bytes(),
            "phase_seconds": self.phases,
        }

    def _outcome(self, sources: Sequence[Source], scratch: Path) -> Outcome:
        read_tasks = [ReadTask(number, group) for number, group in enumerate(groups(sources))]
        if 0 not in self.here.done("evaluation"):
            corpus = self.settings.corpus
            contamination.save(contamination.read(corpus.evaluation, corpus.evaluation_overlap_syllables), self.here)
        self._stage("read", stages.read_group, read_tasks)
        read = [self.here.found("read", task.number) for task in read_tasks]
        clean_tasks = list(_clean_tasks(read))
        self._stage("clean", stages.clean_shard, clean_tasks)
        self.here.storage.delete_tree("raw")
        tallies = [self.here.found("clean", task.number) for task in clean_tasks]
        tally = Tally.total(tallies)
        files = [file for group in read for file in group["files"]]
        _check_something_is_left(files, tally)
        with self._phase("duplicates"):
            repeats, pairs = self._duplicates([part["kept"] for part in tallies], scratch)
        kept = tally.kept - sum(repeats.values())
        share = min(1.0, self.settings.corpus.tokenizer_rows / kept)
        write_tasks = [WriteTask(task.number, round(share * (2**32 - 1))) for task in clean_tasks]
        self._stage("write", stages.write_shard, write_tasks)
        written = [self.here.found("write", task.number) for task in write_tasks]
        with self._phase("tokens"):
            tokenizer = models.read_fast_tokenizer(self.settings.model, models.resolve(self.settings.model))
            fertility = tokens.measure(tokenizer, [text for shard in written for text in shard["sample"]])
        return Outcome(files, tally, repeats, pairs, written, fertility)

    def _stage(self, name: str, stage: Callable[[Work, Task], None], tasks: Sequence[Task]) -> None:
        """Run what is not on record yet."""
        with self._phase(name):
            done = self.here.done(name)
            open_tasks = [task for number, task in enumerate(tasks) if number not in done]
            ended = len(tasks) - len(open_tasks)
            for _ in runner.run(stage, self.here, open_tasks):
                ended += 1
                self.events.append("shard", stage=name, ended=ended, of=len(tasks))
                self.show(name, ended, len(tasks))

    def _duplicates(self, rows: Sequence[int], scratch: Path) -> tuple[dict[str, int], list[Any]]:
        """Put on record which rows of each shard repeat others. Returns how many there are, and examples of NEAR."""
        if 0 not in self.here.done("duplicates"):
            folder = self.here.local_folder(work.SIGNATURES, scratch)
            names = [(work.entries(shard), work.keys(shard)) for shard in range(len(rows))]
            finder = Finder([Shard(folder / e, folder / k, n) for (e, k), n in zip(names, rows, strict=True)])
            exact = finder.exact()
            near = finder.near(self.settings.corpus.near_duplicate_similarity, exact.dropped)
            starts = np.concatenate([[0], np.cumsum(rows)])
            dropped = np.sort(np.concatenate([exact.dropped, near.dropped]))
            for shard, (start, end) in enumerate(pairwise(starts)):
                low, high = np.searchsorted(dropped, (start, end))
                self.here.write_array(work.repeats(shard), (dropped[low:high] - start).astype(np.uint32))
            counts = {EXACT: len(exact.dropped), NEAR: len(near.dropped)}
            self.here.finish("duplicates", 0, {"repeats": counts, "pairs": self._quoted(near, starts)})
        found = self.here.found("duplicates", 0)
        return found["repeats"], found["pairs"]

    def _quoted(self, near: Duplicates, starts: np.ndarray[Any, np.dtype[np.int64]]) -> list[Any]:
        """Source and beginning of some dropped rows and of those that stay."""

        def quote(row: int) -> tuple[str, str]:
            shard = int(np.searchsorted(starts, row, side="right")) - 1
            table = tables.load(self.here.storage.read(work.clean_rows(shard)))
            found = table.slice(row - int(starts[shard]), 1).to_pylist()[0]
            text = " ".join("\n".join(tables.contents(tables.conversation(found))).split())
            return found["source"], text[:_QUOTED_CHARACTERS]

        pairs = zip(near.dropped[:_PAIRS_QUOTED].tolist(), near.kept[:_PAIRS_QUOTED].tolist(), strict=True)
        return [(quote(dropped), quote(kept)) for dropped, kept in pairs]

    def _same_input(self, sources: Sequence[Source]) -> None:
        """Note the input at the first start; raise UsageError if a resumed run finds another."""
        listing = json.dumps([(source.name, source.path, source.size_bytes) for source in sources])
        digest = hashlib.sha256(listing.encode()).hexdigest()
        if 0 not in self.here.done("input"):
            self.here.finish("input", 0, {"sha256": digest})
        if self.here.found("input", 0)["sha256"] != digest:
            raise UsageError(f"{self.run.id}: the input files are not those that it began with; start a new run")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.phases[name] = round(time.perf_counter() - start, 3)
        self.events.append("phase", name=name, seconds=self.phases[name])
        self.events.publish()


def _clean_tasks(read: Sequence[dict[str, Any]]) -> Iterator[CleanTask]:
    number = 0
    for group, found in enumerate(read):
        quarantined = tuple(file["name"] for file in found["files"] if file["error"])
        for part in range(found["parts"]):
            yield CleanTask(number, group, part, quarantined)
            number += 1


def _check_something_is_left(files: Sequence[dict[str, Any]], tally: Tally) -> None:
    if tally.kept:
        return
    bad = [file for file in files if file["error"]]
    if not tally.rows:
        first = f"{bad[0]['name']}: {bad[0]['error']}"
        raise UsageError(f"no row could be read: {len(bad)} of {len(files)} files were put aside, the first is {first}")
    rules = ", ".join(f"{rule} took {count:,}" for rule, count in tally.dropped.most_common())
    example = next(iter(tally.examples[tally.dropped.most_common(1)[0][0]]))
    raise UsageError(
        f"nothing is left of {tally.rows:,} rows: {rules} (for one, {example[0]}: {example[1]}); "
        "look at corpus.cleaning in `make config`"
    )
