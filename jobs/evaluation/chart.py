"""The picture of an evaluation: each benchmark's first metric, in all and by group, with its intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.evaluation.statistics import Estimate
from jobs.evaluation.summary import AGAINST, SUBJECT, Section, Summary

_COLOURS = {SUBJECT: "#d55e00", AGAINST: "#0072b2"}
"""Vermilion and blue, told apart by everyone (Okabe, Ito 2008)."""
_MOST_GROUPS = 12
"""Of more groups only the whole is drawn: 45 subjects of five questions each show nothing but noise."""
_OFFSET = {SUBJECT: -0.14, AGAINST: 0.14}


def draw(summary: Summary, file: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.figure import Figure

    heights = [3 + len(_levels(section)) for section in summary.sections]
    figure = Figure(figsize=(8, 0.36 * sum(heights) + 1), layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, section in zip(panels, summary.sections, strict=True):
        _draw(panel, section)
    handles, _ = panels[0].get_legend_handles_labels()
    names = [_short(summary.models[side]) for side in (SUBJECT, AGAINST) if side in summary.models]
    figure.legend(handles[: len(names)], names, loc="outside upper center", ncols=2, fontsize="small")
    figure.savefig(file, dpi=120)


def _levels(section: Section) -> dict[str, dict[str, Estimate]]:
    """Estimates by row of the picture and side; the whole benchmark first."""
    row = section.rows[0]
    whole = {SUBJECT: row.subject} | ({AGAINST: row.against} if row.against else {})
    groups = {name: dict(sides) for name, sides in section.groups.items()}
    return {"all": whole} | (groups if len(groups) <= _MOST_GROUPS else {})


def _draw(panel: Any, section: Section) -> None:
    levels, metric = _levels(section), section.rows[0].metric
    for side, colour in _COLOURS.items():
        for height, sides in enumerate(levels.values()):
            if (found := sides.get(side)) is not None:
                y = height + _OFFSET[side]
                panel.plot([found.low, found.high], [y, y], color=colour, linewidth=3 if height == 0 else 1.5)
                label = side if height == 0 else None
                panel.plot(found.value, y, "o", color=colour, markersize=7 if height == 0 else 4, label=label)
    if metric.chance is not None:
        panel.axvline(metric.chance, linestyle="--", linewidth=1, color="grey")
        panel.text(metric.chance, 0.02, " chance", transform=panel.get_xaxis_transform(), fontsize="x-small")
    panel.set_yticks(range(len(levels)), list(levels))
    panel.set_ylim(len(levels) - 0.5, -0.5)
    better = "" if metric.lower_is_better is None else f" ({'lower' if metric.lower_is_better else 'higher'} is better)"
    panel.set_title(f"{section.name}: {metric.title}{better}", loc="left", fontsize="medium")
    panel.grid(axis="x", alpha=0.3)
    if (found := section.rows[0].difference) is not None:  # intervals overlap where the paired difference is plain
        between = f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
        panel.set_xlabel(f"difference {between}, p = {section.p_value:.2g} (paired, corrected)", fontsize="small")


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"…{name[-59:]}"
