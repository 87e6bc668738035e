"""The report of a pipeline, for somebody who has to decide: report.md, report.json, quality.png, ab.png."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.costs.spent import price
from jobs.events import Event, EventLog
from jobs.redact import redact, redact_tree
from jobs.registry.promotion import Office
from jobs.release import abtest, chart
from jobs.release.machine import BEGUN, DONE, Outputs
from jobs.release.outcome import Ending
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import NotFound

_WORDS = {
    "promoted": "A new model serves.",
    "unchanged": "Nothing changed.",
    "rejected": "The new model was turned down.",
    "rolled back": "The new model was tried and taken back.",
}
_LOG = 10
"""Newest entries of the promotion log that are shown."""


def publish(tree: Settings, run: Run, events: EventLog, done: Outputs, found: Ending, office: Office) -> None:
    """Write the report into the run directory, complete or not at all."""
    lines = list(events.read())
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        target = Path(scratch)
        pictures = []
        if "evaluate" in done and _copy_picture(run, done["evaluate"]["run"], target / "quality.png"):
            pictures.append("quality")
        observed, against = abtest.recorded(events)
        if "ab" in done and against is not None:
            chart.draw(observed, against, tree.ab, target / "ab.png")
            pictures.append("ab")
        text = json.dumps(redact_tree({"outcome": vars(found), "steps": done}), ensure_ascii=False, indent=2)
        (target / "report.json").write_text(text + "\n", encoding="utf-8")
        said = markdown(tree, run, lines, done, found, office, pictures)
        (target / "report.md").write_text(redact(said), encoding="utf-8")
        run.publish(target, "report")


def markdown(
    tree: Settings,
    run: Run,
    events: Sequence[Event],
    done: Outputs,
    found: Ending,
    office: Office,
    pictures: Sequence[str],
) -> str:
    """The report as text."""
    parts = [
        f"# {run.id}\n\n**{_WORDS[found.kind]}** {_capital(found.sentence)}.\n",
        _serving(office, found),
        _made(tree, run, done),
        _gate(done, "quality" in pictures),
        _ab(tree, done, "ab" in pictures),
        _cost(tree, events, done),
    ]
    return "\n".join(part for part in parts if part)


def seconds_by_step(events: Sequence[Event]) -> dict[str, float]:
    """Time that each step took in this run, from its last start to its end."""
    began: dict[str, float] = {}
    took: dict[str, float] = {}
    for event in events:
        if event.kind == BEGUN:
            began[event.fields["name"]] = event.time_unix_s
        elif event.kind == DONE and event.fields["name"] in began:
            took[event.fields["name"]] = event.time_unix_s - began.pop(event.fields["name"])
    return took


def _serving(office: Office, found: Ending) -> str:
    versions = {version.number: version for version in office.registry.versions()}
    text = "## Who serves\n\n"
    if found.champion is None:
        return f"{text}Nobody yet.\n"
    made = versions[found.champion].lineage
    rows = [("version", found.champion), *((name.replace("_", " "), value) for name, value in vars(made).items())]
    log = [
        [str(e.number), e.kind, f"{e.before or '-'} → {e.to or '-'}", e.by, e.reason] for e in office.history.entries()
    ]
    return f"{text}{_table(['champion', ''], rows)}\n{_table(['', 'what', 'versions', 'by', 'why'], log[-_LOG:])}"


def _made(tree: Settings, run: Run, done: Outputs) -> str:
    trained = Run(run.storage, done["train"]["run"])
    result = trained.result()
    rows = [
        ("training run", trained.id),
        ("base model", f"{tree.model.source} ({done['data']['base_model_sha256'][:12]})"),
        ("dataset", f"{tree.data.source} ({done['data']['data_sha256'][:12]})"),
        ("rows to train on / held out", f"{_rows(result, 'train')} / {_rows(result, 'held_out')}"),
        ("steps", result["steps"]),
        ("held-out perplexity, before and after", f"{result['base_perplexity']:.2f} → {result['eval_perplexity']:.2f}"),
    ]
    best = (
        f"\nThe search `{done['tune']['run']}` found:\n\n```yaml\n{done['tune']['best']}```\n" if "tune" in done else ""
    )
    return f"## What was trained, on what\n\n{_table(['', ''], rows)}{best}"


def _gate(done: Outputs, has_picture: bool) -> str:
    if "gate" not in done:
        return ""
    against = f"version {done['champion']['version']}" if done["champion"]["version"] else "the untouched base model"
    rows = [[c["name"], c["verdict"], c["found"], c["bar"], c["reason"]] for c in done["gate"]["checks"]]
    picture = "\n![candidate and champion by benchmark](quality.png)\n" if has_picture else ""
    return (
        f"## How good it is\n\nCompared with {against}. {_capital(done['evaluate']['verdict'])}\n\n"
        f"The gate says **{done['gate']['verdict']}**.\n\n"
        f"{_table(['check', 'verdict', 'found', 'bar', 'why'], rows)}{picture}"
    )


def _ab(tree: Settings, done: Outputs, has_picture: bool) -> str:
    if "ab" not in done:
        return ""
    rows = [
        [m["name"], m["pairs"], "-" if m["difference"] is None else f"{m['difference']:+.4f}", m["margin"], _state(m)]
        for m in done["ab"]["metrics"]
    ]
    picture = "\n![differences of the A/B test over time](ab.png)\n" if has_picture else ""
    return (
        f"## How it did beside the champion\n\nThe test ended with **{done['ab']['outcome']}** after "
        f"{done['ab']['pairs']} pairs of answers: {done['ab']['reason']}.\n\n"
        f"{_table(['metric', 'pairs', 'difference (more is worse)', 'margin', 'verdict'], rows)}{picture}\n"
        f"A challenger as good as the champion is called worse in at most {tree.ab.false_positive_rate:.0%} of such "
        "tests, however often one looks (e-values from bets on bounded differences; Johari et al. 2022, Howard et al. "
        "2021, Waudby-Smith and Ramdas 2024).\n"
    )


def _state(metric: Mapping[str, Any]) -> str:
    return "worse" if metric["worse"] else "not worse" if metric["sound"] else "not certain"


def _cost(tree: Settings, events: Sequence[Event], done: Outputs) -> str:
    took = seconds_by_step(events)
    priced = price(tree, "pipeline")
    per_hour = priced[1] if priced else None
    rows = [[name, f"{seconds / 60:.1f}", _price(seconds, per_hour)] for name, seconds in took.items()]
    total = sum(took.values())
    rows.append(["in all", f"{total / 60:.1f}", _price(total, per_hour)])
    reused = [name for name in done if name not in took]
    note = (
        f"\nTaken over from earlier runs, as nothing they depend on had changed: {', '.join(reused)}.\n"
        if reused
        else ""
    )
    unknown = "" if per_hour else "\nCosts are not known: `cost.usd_per_hour.training` is not set.\n"
    return f"## What it cost\n\n{_table(['step', 'minutes', 'USD'], rows)}{note}{unknown}"


def _price(seconds: float, per_hour: float | None) -> str:
    return f"{seconds / 3600 * per_hour:.4g}" if per_hour else "-"


def _rows(result: Mapping[str, Any], side: str) -> str:
    return f"{result['data'][side]['rows']:,}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _copy_picture(run: Run, evaluation: str, target: Path) -> bool:
    try:
        target.write_bytes(run.storage.read(Run(run.storage, evaluation).path("report", "comparison.png")))
    except NotFound:
        return False
    return True
