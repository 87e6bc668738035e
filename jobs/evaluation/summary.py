"""From the records of one or two models to figures, tests and a verdict. Pure: no model, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.evaluation.benchmark import Benchmark, Item, Metric
from jobs.evaluation.statistics import Difference, Estimate, Resampling, difference, direction, estimate, holm

SUBJECT, AGAINST = "subject", "against"


@dataclass(frozen=True)
class Row:
    """One metric of one benchmark. `difference` is None where the two models cannot be compared by it."""

    metric: Metric
    subject: Estimate
    against: Estimate | None
    difference: Difference | None


@dataclass(frozen=True)
class Section:
    """One benchmark: how many items were asked, and how many scored by side (what is too long is left out).

    `groups` holds the first metric's estimates by group and side. `verdict` is 1 if the subject is better, -1 if worse,
    0 if nobody can tell, None without a second model; `p_value` is corrected by Holm.
    """

    name: str
    asked: int
    items: Mapping[str, int]
    inputs: Mapping[str, str]
    rows: Sequence[Row]
    groups: Mapping[str, Mapping[str, Estimate]]
    verdict: int | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Summary:
    """All of an evaluation's figures. `models` is the name of each side."""

    models: Mapping[str, str]
    sections: Sequence[Section]
    confidence: float

    @property
    def verdict(self) -> str:
        """The answer in words."""
        if AGAINST not in self.models:
            return "One model was measured; with AGAINST= a second one is compared with it."
        found = {mark: [s.name for s in self.sections if s.verdict == mark] for mark in (1, -1, 0)}
        parts = [
            f"{words} {', '.join(found[mark])}"
            for mark, words in ((1, "better on"), (-1, "worse on"), (0, "not to be told apart on"))
            if found[mark]
        ]
        level = f"(significance level {1 - self.confidence:.2g} over all benchmarks together)"
        return f"{self.models[SUBJECT]} against {self.models[AGAINST]}: {'; '.join(parts)} {level}."

    def numbers(self) -> dict[str, Any]:
        """What `result.json`, MLflow and `report.json` take."""
        return {section.name: _numbers(section) for section in self.sections}


def summarise(
    models: Mapping[str, str],
    benchmarks: Sequence[Benchmark],
    outcomes: Mapping[str, Mapping[str, Sequence[Item]]],
    how: Resampling,
    *,
    same_tokenizer: bool,
) -> Summary:
    """Figures from `outcomes[side][benchmark]`. Metrics per token are compared under the same tokenizer only."""
    sections = [
        _section(b, {side: outcomes[side][b.name] for side in models}, how, same_tokenizer=same_tokenizer)
        for b in benchmarks
    ]
    tested = [(i, s.rows[0].difference) for i, s in enumerate(sections) if s.rows[0].difference is not None]
    corrected = holm([found.p_value for _, found in tested])
    for (index, found), p_value in zip(tested, corrected, strict=True):
        verdict = direction(sections[index].rows[0].metric, found, p_value, how.confidence)
        sections[index] = replace(sections[index], verdict=verdict, p_value=p_value)
    return Summary(models, sections, how.confidence)


def _section(
    benchmark: Benchmark, items: Mapping[str, Sequence[Item]], how: Resampling, *, same_tokenizer: bool
) -> Section:
    subject, against = items[SUBJECT], items.get(AGAINST)
    rows = [
        Row(
            metric,
            estimate(metric, subject, how),
            estimate(metric, against, how) if against else None,
            difference(metric, subject, against, how)
            if against and metric.lower_is_better is not None and (same_tokenizer or not metric.per_token)
            else None,
        )
        for metric in benchmark.metrics
    ]
    names = list(dict.fromkeys(item.group for item in subject if item.group))
    groups = {
        name: {
            side: estimate(benchmark.metrics[0], [item for item in given if item.group == name], how)
            for side, given in items.items()
        }
        for name in names
    }
    return Section(
        benchmark.name,
        len(benchmark),
        {side: len(given) for side, given in items.items()},
        benchmark.inputs,
        rows,
        groups,
    )


def _numbers(section: Section) -> dict[str, Any]:
    metrics = {
        row.metric.name: {
            SUBJECT: asdict(row.subject),
            **({AGAINST: asdict(row.against)} if row.against else {}),
            **({"difference": asdict(row.difference)} if row.difference else {}),
        }
        for row in section.rows
    }
    groups = {name: {side: asdict(e) for side, e in sides.items()} for name, sides in section.groups.items()}
    tested = {} if section.verdict is None else {"verdict": section.verdict, "p_value_corrected": section.p_value}
    return {"asked": section.asked, "items": dict(section.items), "metrics": metrics, **tested, "groups": groups}
