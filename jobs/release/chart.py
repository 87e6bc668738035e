"""The picture of an A/B test: for each metric the mean difference as pairs came in, and the evidence against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.release.ab import Baseline, Observation, differences
from jobs.release.sequential import running_e_values
from jobs.release.settings import AbSettings

_DIFFERENCE, _EVIDENCE = "#0072b2", "#d55e00"
"""Blue and vermilion, told apart by everyone (Okabe, Ito 2008)."""


def draw(observed: Sequence[Observation], against: Baseline, settings: AbSettings, file: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.figure import Figure

    margins = settings.margins()
    limit = math.log10(len(margins) / settings.false_positive_rate)
    figure = Figure(figsize=(9, 2.2 * len(margins) + 0.6), layout="constrained")
    panels = figure.subplots(len(margins), 2, squeeze=False)
    for (left, right), (name, margin) in zip(panels, margins.items(), strict=True):
        found = differences(name, observed, against)
        count = np.arange(1, len(found) + 1)
        left.plot(count, found.cumsum() / count, color=_DIFFERENCE)
        left.axhline(margin, linestyle="--", color="grey")
        left.axhline(0, linewidth=0.8, color="black")
        left.set_title(f"{name}: challenger − champion (dashed: margin)", loc="left", fontsize="small")
        right.plot(count, running_e_values(found, 0.0) / math.log(10), color=_EVIDENCE)
        right.axhline(limit, linestyle="--", color="grey")
        right.set_title(f"{name}: evidence that it is worse, log10 (dashed: certain)", loc="left", fontsize="small")
        for panel in (left, right):
            panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("pairs of answers")
    figure.savefig(file, dpi=120)
