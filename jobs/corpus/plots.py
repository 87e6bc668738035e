"""The pictures of the datasheet. The same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.corpus.outcome import Outcome
from jobs.corpus.tally import class_bound

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(outcome: Outcome, folder: Path) -> None:
    """Write `rows.png`, `lengths.png` and, if rows with Hangul were sampled, `tokens.png`."""
    _save(_rows(outcome), folder / "rows.png")
    _save(_lengths(outcome), folder / "lengths.png")
    if outcome.fertility.tokens:
        _save(_tokens(outcome), folder / "tokens.png")


def _rows(outcome: Outcome) -> Figure:
    """Where the rows went: a bar per side and rule."""
    bars = {"train": outcome.kept["train"], "held out": outcome.kept["held_out"]} | outcome.dropped
    figure, axes = _axes(height=1.2 + 0.32 * len(bars))
    colours = ["tab:green", "tab:olive"] + ["tab:red"] * len(outcome.dropped)
    drawn = axes.barh([name.replace("_", " ") for name in bars], list(bars.values()), color=colours)
    axes.bar_label(drawn, [f"{count:,}" for count in bars.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="rows", title="Where the rows went")
    return figure


def _lengths(outcome: Outcome) -> Figure:
    figure, axes = _axes()
    edges = [class_bound(number) for number in range(len(outcome.lengths) + 1)]
    axes.stairs(outcome.lengths, edges, fill=True, color="tab:green", alpha=0.7)
    first = next(number for number, count in enumerate(outcome.lengths) if count)
    axes.set(xscale="log", xlim=(edges[first], edges[-1]), xlabel="characters per kept row", ylabel="rows")
    axes.set_title("Length of the rows")
    for share in (0.5, 0.9):
        at = outcome.length_percentile(share)
        axes.axvline(at, linestyle="--", color="grey")
        axes.text(at, 0.97, f" {share:.0%}: {at:,}", va="top", transform=axes.get_xaxis_transform())
    return figure


def _tokens(outcome: Outcome) -> Figure:
    from matplotlib.figure import Figure

    rows = outcome.fertility
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, name, units in zip(
        figure.subplots(1, 2), ("word", "syllable"), (rows.words, rows.syllables), strict=True
    ):
        ratios = sorted(tokens / unit for tokens, unit in zip(rows.tokens, units, strict=True))
        highest = ratios[int(0.99 * (len(ratios) - 1))]  # a few rows of code would squeeze all others into one bar
        axes.hist([ratio for ratio in ratios if ratio <= highest], bins=40, color="tab:blue", alpha=0.7)
        mean = sum(rows.tokens) / sum(units)
        axes.axvline(mean, linestyle="--", color="grey")
        axes.text(mean, 0.97, f" all rows: {mean:.2f}", va="top", transform=axes.get_xaxis_transform())
        axes.set(xlabel=f"tokens per {name}", ylabel="sampled rows")
    return figure


def _axes(height: float = 4.0) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=120, metadata={"Software": None})
