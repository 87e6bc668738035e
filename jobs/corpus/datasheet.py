"""What a reader of the training set wants to know: what went in, what was dropped and why, what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from jobs.corpus import plots
from jobs.corpus.outcome import NEAR, Outcome, listed, overlap_by_file
from jobs.corpus.product import CARD
from jobs.redact import redact
from jobs.settings import Settings

INPUTS = "inputs.tsv"
_QUARANTINED_SHOWN = 50
_LINES_SHOWN = 20


def write(outcome: Outcome, settings: Settings, code: str, folder: Path) -> None:
    """Write card, list of inputs, `datasheet.md` and its plots to `folder`.

    Nothing in them depends on when, where and on how many workers they were made.
    """
    made_with = {
        "model": {"source": settings.model.source, "revision": settings.model.revision},
        "data": {"held_out": settings.data.held_out},
        "corpus": settings.corpus.model_dump(mode="json", exclude={"source", "output"}),
    }
    card = {"code": code, "figures": outcome.figures(), "settings": made_with}
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    (folder / CARD).write_text(redact(text), encoding="utf-8")
    (folder / INPUTS).write_text(redact(_inputs(outcome)), encoding="utf-8")
    (folder / "datasheet.md").write_text(redact(_markdown(outcome, settings, code)), encoding="utf-8")
    plots.draw(outcome, folder)


def _inputs(outcome: Outcome) -> str:
    columns = ("name", "bytes", "sha256", "encoding", "rows", "error")
    lines = ["\t".join(columns)]
    lines += ["\t".join(" ".join(str(file[column]).split()) for column in columns) for file in outcome.files]
    return "\n".join(lines) + "\n"


def _markdown(outcome: Outcome, settings: Settings, code: str) -> str:
    sides, read = outcome.kept, outcome.tally.rows
    kept = sum(sides.values())
    shares = (0.1, 0.5, 0.9)
    percentiles = {f"{share:.0%} of the rows have at most": outcome.length_percentile(share) for share in shares}
    sections = [
        "# Datasheet\n",
        _table(
            ("", ""),
            [
                ("files read", f"{len(outcome.files) - len(outcome.quarantined):,}"),
                ("files put aside", f"{len(outcome.quarantined):,}"),
                ("rows read", f"{read:,}"),
                ("rows kept", f"{kept:,} ({kept / read:.1%})"),
                ("of these for training", f"{sides['train']:,}"),
                ("and held out", f"{sides['held_out']:,}"),
                ("characters kept", f"{sum(shard['characters'] for shard in outcome.written):,}"),
                ("code version", code),
            ],
        ),
        f"Settings: `{CARD}`. Input files with their sha256: `{INPUTS}`. Files of this folder: `manifest.json`.\n",
        "## What was dropped, and why\n",
        "![where the rows went](rows.png)\n",
        _table(
            ("rule", "rows", "of those read"),
            [(f"`{rule}`", f"{count:,}", f"{count / read:.1%}") for rule, count in outcome.dropped.items()],
        ),
        *_examples(outcome),
        *_overlaps(outcome),
        "## What the steps changed\n",
        _table(("step", "rows"), [(f"`{step}`", f"{n:,}") for step, n in sorted(outcome.tally.changed.items())]),
        "## Personal data masked\n",
        _table(("kind", "places"), [(f"`{kind}`", f"{n:,}") for kind, n in sorted(outcome.tally.masked.items())]),
        "## Length\n",
        "![length of the rows](lengths.png)\n",
        _table(("", "characters, about"), [(name, f"{value:,}") for name, value in percentiles.items()]),
        *_tokens(outcome, settings),
        "## Files\n",
        _table(("encoding", "files"), _encodings(outcome)),
        *_quarantine(outcome),
    ]
    return "\n".join(sections)


def _examples(outcome: Outcome) -> Iterable[str]:
    yield "### Examples\n"
    yield "Personal data in them is masked.\n"
    for rule, quoted in sorted(outcome.tally.examples.items()):
        yield f"`{rule}`\n"
        yield _table(("where", "why", "beginning"), quoted)
    if outcome.pairs:
        yield f"`{NEAR}`\n"
        yield _table(("dropped", "", "stays", ""), [(*dropped, *stays) for dropped, stays in outcome.pairs])


def _overlaps(outcome: Outcome) -> Iterable[str]:
    if outcome.tally.overlaps:
        yield "## Rows that overlap evaluation sets\n"
        yield _table(
            ("set", "rows dropped", "its lines"),
            [
                (name, f"{count:,}", listed(lines, _LINES_SHOWN))
                for name, (count, lines) in overlap_by_file(outcome.tally.overlaps).items()
            ],
        )


def _tokens(outcome: Outcome, settings: Settings) -> Iterable[str]:
    figures = outcome.fertility.figures()
    if figures:
        yield "## Tokens\n"
        yield f"{len(outcome.fertility.tokens):,} rows with Hangul under the tokenizer of `{settings.model.source}`.\n"
        yield "![tokens per word and per syllable](tokens.png)\n"
        yield _table(("", ""), [(name.replace("_", " "), f"{value:.2f}") for name, value in figures.items()])


def _encodings(outcome: Outcome) -> list[tuple[str, str]]:
    names = sorted({file["encoding"] for file in outcome.files if file["encoding"]})
    return [(name, f"{sum(file['encoding'] == name for file in outcome.files):,}") for name in names]


def _quarantine(outcome: Outcome) -> Iterable[str]:
    files = outcome.quarantined
    if files:
        yield "### Put aside\n"
        yield _table(("file", "why"), [(file["name"], file["error"]) for file in files[:_QUARANTINED_SHOWN]])
        if len(files) > _QUARANTINED_SHOWN:
            yield f"{len(files) - _QUARANTINED_SHOWN:,} more are in `{INPUTS}`.\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
