"""The plots of a study: its history, which settings mattered, and which values went together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.settings import Settings
from jobs.tuning import search, space
from jobs.tuning.record import Trial
from jobs.tuning.settings import Dimension, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_FOR_IMPORTANCE = 4
"""Trials with a loss; fewer say nothing about which setting made it."""
_DPI = 120


def draw(settings: Settings, found: Mapping[int, Trial], folder: Path) -> list[str]:
    """Write `history.png`, `importance.png` (given enough trials) and `parallel.png`; return the names written."""
    sound = {number: trial for number, trial in found.items() if trial.sound}
    names = ["history.png", "parallel.png"]
    _history(found, folder / names[0])
    _parallel(settings, sound, folder / names[1])
    importances = importance(settings, sound)
    if importances:
        names.insert(1, "importance.png")
        _importance(importances, folder / names[1])
    return names


def importance(settings: Settings, sound: Mapping[int, Trial]) -> dict[str, float]:
    """Share of each setting in how good a trial was (PED-ANOVA, Watanabe et al. 2023); empty with too few trials."""
    import optuna

    if len(sound) < _LEAST_FOR_IMPORTANCE or len({trial.loss for trial in sound.values()}) == 1:
        return {}
    study = search.optuna_study(settings, dict(enumerate(sound.values())))
    return dict(optuna.importance.get_param_importances(study))


def _history(found: Mapping[int, Trial], file: Path) -> None:
    """Every trial's curve of held-out loss over steps, beside each trial's lowest by number."""
    from matplotlib.ticker import MaxNLocator

    figure, (curves, ends) = _axes(2)
    best = float("inf")
    course: list[tuple[int, float]] = []
    for number, trial in sorted(found.items()):
        if not trial.reports:
            continue
        steps, losses = [r.step for r in trial.reports], [r.eval_loss for r in trial.reports]
        (curve,) = curves.plot(steps, losses, linewidth=1, alpha=0.8)
        curves.plot(steps[-1:], losses[-1:], marker=_MARKS[trial.outcome or ""], color=curve.get_color())
        ends.plot([number], [trial.loss], marker=_MARKS[trial.outcome or ""], color=curve.get_color())
        best = min(best, trial.loss) if trial.sound else best
        course.append((number, best))
    ends.step(*zip(*course, strict=True), where="post", color="black", linewidth=1, label="best so far")
    used = {trial.outcome or "" for trial in found.values() if trial.reports}
    for outcome in sorted(used):
        ends.plot([], [], marker=_MARKS[outcome], color="grey", linestyle="", label=outcome.replace("_", " "))
    curves.set(xlabel="optimiser step", ylabel="held-out loss (nats per token)")
    ends.set(xlabel="trial", ylabel="lowest held-out loss")
    ends.xaxis.set_major_locator(MaxNLocator(integer=True))
    ends.legend()
    figure.savefig(file, dpi=_DPI)


_MARKS = {"completed": "o", "stopped": "v", "cut_off": "s", "diverged": "x", "out_of_memory": "P", "died": "X"} | {
    "failed": "*"
}


def _importance(shares: Mapping[str, float], file: Path) -> None:
    figure, (axes,) = _axes(1)
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color="tab:orange")
    axes.bar_label(bars, fmt="{:.0%}", padding=3)
    axes.set(xlabel="share of the variation among the better trials", xlim=(0, 1.1 * max(shares.values())))
    figure.savefig(file, dpi=_DPI)


def _parallel(settings: Settings, sound: Mapping[int, Trial], file: Path) -> None:
    """One vertical axis per setting and one for the loss; a line per trial, the better the darker and later drawn."""
    from matplotlib import colormaps

    figure, (axes,) = _axes(1)
    dims = space.dimensions(settings)
    ranked = sorted(sound.values(), key=lambda trial: -trial.loss)
    losses = [trial.loss for trial in ranked]
    scales = {key: _scale(dimension) for key, dimension in dims.items()}
    height = max(losses) - min(losses) or 1.0
    for rank, trial in enumerate(ranked, start=1):
        heights = [scales[key](trial.draw[key]) for key in dims] + [(trial.loss - min(losses)) / height]
        axes.plot(range(len(heights)), heights, color=colormaps["viridis_r"](rank / len(ranked)), zorder=rank)
    for x, (key, dimension) in enumerate(dims.items()):
        _label(axes, x, {_tick(v): scales[key](v) for v in space.ends(dimension)})
        axes.axvline(x, color="grey", linewidth=0.8, zorder=0)
    _label(axes, len(dims), {f"{min(losses):.3f}": 0.0, f"{max(losses):.3f}": 1.0})
    axes.axvline(len(dims), color="grey", linewidth=0.8, zorder=0)
    names = [f"{key}\n÷ {d.times}" if d.times else key for key, d in dims.items()]
    axes.set_xticks(range(len(dims) + 1), [*names, "held-out\nloss"], rotation=15, fontsize=8)
    axes.set(yticks=[], xlim=(-0.2, len(dims) + 0.5), ylim=(-0.05, 1.05))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.savefig(file, dpi=_DPI)


def _scale(dimension: Dimension) -> Any:
    """A function from a drawn value to its height between 0 and 1."""
    if dimension.choices is not None:
        places = {value: i / (len(dimension.choices) - 1) for i, value in enumerate(dimension.choices)}
        return places.__getitem__
    assert dimension.min is not None and dimension.max is not None
    low, high = dimension.min, dimension.max
    if dimension.log:
        return lambda value: math.log(value / low) / math.log(high / low)
    return lambda value: (value - low) / (high - low)


def _tick(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(axes: Axes, x: int, heights: Mapping[str, float]) -> None:
    for text, height in heights.items():
        axes.text(x + 0.04, height, text, fontsize=7, va="center", zorder=1000)


def _axes(count: int) -> tuple[Any, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9 if count == 1 else 11, 4.5), layout="constrained")
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for one in axes:
        one.grid(alpha=0.3)
    return figure, axes
