"""Plots of the sensitivity table: node-hours and waits against one assumption each, one SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sensitivity", "font.size": 8})

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of what draws

HOURS, P95 = 1, 4
"""Columns of the table's rows."""


def draw(sweeps: dict[str, list[tuple[object, ...]]], folder: Path) -> None:
    """Write sensitivity.svg, one panel a sweep: node-hours (solid, left) and p95 wait in seconds (dashed, right)."""
    figure, panels = plt.subplots(2, 3, figsize=(9, 5), layout="constrained")
    shown = [name for name in sweeps if not name.startswith("checkpoint")]  # changes neither
    for panel, name in zip(panels.flat, shown, strict=True):
        places = range(len(sweeps[name]))
        panel.plot(places, [float(str(row[HOURS])) for row in sweeps[name]], "o-", color="#1b6ca8", markersize=3)
        panel.set_xticks(places, [str(row[0]) for row in sweeps[name]])
        panel.set_xlabel(name)
        panel.set_ylabel("node-hours a week")
        panel.set_ylim(bottom=0)
        waits = panel.twinx()
        waits.plot(places, [float(str(row[P95])) for row in sweeps[name]], "s--", color="#c8553d", markersize=3)
        waits.axhline(300, color="#c8553d", linewidth=0.5)
        waits.set_ylabel("p95 wait, s")
        waits.set_ylim(bottom=0)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "sensitivity.svg", metadata={"Date": None})
