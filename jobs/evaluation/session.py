"""An evaluation from its first model to its report.

Each benchmark's records are written to `items/<benchmark>-<side>.jsonl` of the run as soon as they are there, with an
event that holds the sha256 of the file, of the model and of the inputs. A resumed run takes what still matches these
and measures the rest.
"""

from __future__ import annotations

import gc
import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.costs.spent import in_result
from jobs.errors import HaetsalError, Interrupted
from jobs.evaluation import report
from jobs.evaluation.benchmark import Benchmark, Item
from jobs.evaluation.candidate import Candidate
from jobs.evaluation.files import sha256
from jobs.evaluation.statistics import Resampling
from jobs.evaluation.summary import AGAINST, SUBJECT, Summary, summarise
from jobs.runs import EventLog, Run, git_revision
from jobs.settings import Settings
from jobs.storage import NotFound
from jobs.tracking import Tracker
from jobs.training.progress import ProgressDisplay

ITEMS = "items"
"""Folder of the records in the run directory."""

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "numpy", "scipy")


@dataclass(frozen=True)
class Session:
    """What is evaluated, on what, and where the results go."""

    settings: Settings
    run: Run
    subject: Candidate
    against: Candidate | None
    benchmarks: Sequence[Benchmark]

    def evaluate(self) -> tuple[dict[str, Any], Summary]:
        """Measure, compare, publish `report/`; return the numbers of `result.json` and the summary.

        Raises the HaetsalError that ended it, after putting it on record; Interrupted on Ctrl-C.
        """
        with EventLog(self.run) as events, Tracker(self.settings.tracking, events):
            events.append("config", settings=self.settings.model_dump(mode="json"), git_revision=git_revision())
            try:
                result, summary = self._evaluate(events)
            except KeyboardInterrupt:
                events.append("failed", type="Interrupted", reason="stopped by the user")
                raise Interrupted("stopped; what was measured is kept") from None
            except HaetsalError as error:
                events.append("failed", type=type(error).__name__, reason=str(error))
                raise
            result |= in_result(self.settings, self.run.job, events.read())
            events.append("result", **result)
            return result, summary

    def _evaluate(self, events: EventLog) -> tuple[dict[str, Any], Summary]:
        options = self.settings.evaluate
        sides = {SUBJECT: self.subject} | ({AGAINST: self.against} if self.against else {})
        identities = {side: candidate.identity() for side, candidate in sides.items()}
        outcomes = {side: self._measured(events, side, given, identities[side]) for side, given in sides.items()}
        tokenizers = {candidate.weights.tokenizer_sha256() for candidate in sides.values()}
        summary = summarise(
            {side: candidate.name for side, candidate in sides.items()},
            self.benchmarks,
            outcomes,
            Resampling(options.resamples, options.confidence, options.seed),
            same_tokenizer=len(tokenizers) == 1,
        )
        result = {
            "verdict": summary.verdict,
            "benchmarks": summary.numbers(),
            "models": {side: {"name": given.name, **identities[side]} for side, given in sides.items()},
            "inputs": {benchmark.name: benchmark.inputs for benchmark in self.benchmarks},
            "seed": options.seed,
            "resamples": options.resamples,
            "confidence": options.confidence,
            "versions": {"haetsal": git_revision()} | {name: importlib.metadata.version(name) for name in _LIBRARIES},
        }
        report.publish(self.run, result, summary, outcomes)
        return result, summary

    def _measured(
        self, events: EventLog, side: str, candidate: Candidate, identity: Mapping[str, str]
    ) -> dict[str, list[Item]]:
        kept = {b.name: items for b in self.benchmarks if (items := self._kept(events, side, b, identity)) is not None}
        missing = [benchmark for benchmark in self.benchmarks if benchmark.name not in kept]
        if not missing:
            return kept
        loaded = candidate.load()
        for benchmark in missing:
            started = time.perf_counter()
            with ProgressDisplay(title=f"{benchmark.name}, {side}", unit=f"{benchmark.name}, {side}:") as display:
                items = benchmark.run(loaded, display.count)
            data = "".join(f"{item.to_json()}\n" for item in items).encode()
            self.run.storage.write(self._file(benchmark, side), data)
            seconds = round(time.perf_counter() - started, 3)
            events.append(
                "benchmark",
                name=benchmark.name,
                side=side,
                items_sha256=sha256(data),
                model=dict(identity),
                inputs=benchmark.inputs,
            )
            events.append("phase", name=f"{benchmark.name}/{side}", seconds=seconds)
            events.publish()
            kept[benchmark.name] = items
        del loaded
        gc.collect()  # two models at once may not fit
        return kept

    def _kept(
        self, events: EventLog, side: str, benchmark: Benchmark, identity: Mapping[str, str]
    ) -> list[Item] | None:
        """Records of an earlier start, if they are of this model on these inputs and whole."""
        for event in reversed(list(events.read())):
            if event.kind == "benchmark" and (event.fields["name"], event.fields["side"]) == (benchmark.name, side):
                try:
                    data = self.run.storage.read(self._file(benchmark, side))
                except NotFound:
                    return None
                recorded = (event.fields["model"], event.fields["inputs"], event.fields["items_sha256"])
                if recorded != (dict(identity), benchmark.inputs, sha256(data)):
                    return None
                return [Item.from_json(line) for line in data.decode().split("\n") if line]
        return None

    def _file(self, benchmark: Benchmark, side: str) -> str:
        return self.run.path(ITEMS, f"{benchmark.name}-{side}.jsonl")
