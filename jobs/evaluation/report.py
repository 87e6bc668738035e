"""`report/` of an evaluation: report.json, report.md and comparison.png."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.evaluation import chart
from jobs.evaluation.benchmark import Item
from jobs.evaluation.statistics import Difference, Estimate
from jobs.evaluation.summary import AGAINST, SUBJECT, Row, Section, Summary
from jobs.redact import redact, redact_tree
from jobs.runs import Run

_MARKS = {1: "better", -1: "worse", 0: "cannot be told apart"}
_ANSWERS = 5
"""Generated answers shown; the rest stand in `items/`."""


def publish(
    run: Run, result: dict[str, Any], summary: Summary, outcomes: Mapping[str, Mapping[str, Sequence[Item]]]
) -> None:
    """Write the report into the run directory, complete or not at all."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        text = json.dumps(redact_tree(result), ensure_ascii=False, allow_nan=False, indent=2)
        (target / "report.json").write_text(text + "\n", encoding="utf-8")
        (target / "report.md").write_text(redact(markdown(run.id, result, summary, outcomes)), encoding="utf-8")
        chart.draw(summary, target / "comparison.png")
        run.publish(target, "report")


def markdown(
    run_id: str, result: dict[str, Any], summary: Summary, outcomes: Mapping[str, Mapping[str, Sequence[Item]]]
) -> str:
    """The report for people."""
    models = "".join(
        f"| {side} | {model['name']} | {' '.join(v for k, v in model.items() if k != 'name')} |\n"
        for side, model in result["models"].items()
    )
    inputs = "".join(
        f"| {benchmark} | {name} | {digest} |\n"
        for benchmark, given in result["inputs"].items()
        for name, digest in given.items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    sections = "\n".join(_section(section, summary.confidence) for section in summary.sections)
    return f"""# {run_id}

{summary.verdict}

![comparison](comparison.png)

{sections}
{_answers(outcomes)}
## What the figures were made from

| side | model | sha256 of base, and of adapter if there is one |
|---|---|---|
{models}
| benchmark | input | sha256 |
|---|---|---|
{inputs}
Intervals: {summary.confidence:.0%}; shares of right answers by Wilson's method, all else by {result["resamples"]:,}
bootstrap resamples of items, seed {result["seed"]}. p is of one paired test; the verdict corrects for the number of
benchmarks by Holm's method and also wants the interval of the difference to leave zero out. Versions: {versions}.
"""


def _section(section: Section, confidence: float) -> str:
    items = " and ".join(str(count) for count in dict.fromkeys(section.items.values()))
    head = f"## {section.name}, {items} of {section.asked} items\n\n"
    if section.verdict is not None:
        head += f"The subject {_verdict(section)} (corrected p = {section.p_value:.3g}).\n\n"
    against = any(row.against for row in section.rows)
    columns = ["", SUBJECT] + ([AGAINST, "difference", "p", "test"] if against else [])
    lines = [columns, ["---"] * len(columns), *(_row(row, against) for row in section.rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return head + table + _groups(section)


def _verdict(section: Section) -> str:
    assert section.verdict is not None
    mark = _MARKS[section.verdict]
    return f"is {mark}" if section.verdict else f"{mark} from the other"


def _row(row: Row, against: bool) -> list[str]:
    cells = [row.metric.title, _figure(row.subject)]
    if not against:
        return cells
    cells.append(_figure(row.against) if row.against else "")
    if row.difference is not None:
        return [*cells, _signed(row.difference), f"{row.difference.p_value:.3g}", row.difference.test]
    return [*cells, "", "", "other tokenizer: not comparable" if row.metric.per_token else "no direction is better"]


def _groups(section: Section) -> str:
    if not section.groups:
        return ""
    sides = list(next(iter(section.groups.values())))
    lines = [["group", *sides], ["---"] * (1 + len(sides))]
    lines += [[name, *(_figure(found[side]) for side in sides)] for name, found in section.groups.items()]
    return f"\n{section.rows[0].metric.title}, by group:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figure(found: Estimate) -> str:
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"


def _signed(found: Difference) -> str:
    return f"{found.value:+.4g} [{found.low:+.4g}, {found.high:+.4g}]"


def _answers(outcomes: Mapping[str, Mapping[str, Sequence[Item]]]) -> str:
    sides = {side: benchmarks["prompts"] for side, benchmarks in outcomes.items() if "prompts" in benchmarks}
    if not sides:
        return ""
    text = "\n## Some answers\n"
    for items in list(zip(*sides.values(), strict=True))[:_ANSWERS]:
        text += f"\n**{_one_line(items[0].detail['prompt'])}**\n\n| | | failed checks |\n|---|---|---|\n"
        for side, item in zip(sides, items, strict=True):
            failed = _one_line(", ".join(item.detail["failed"])) or "none"
            text += f"| {side} | {_one_line(item.detail['answer'])} | {failed} |\n"
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
