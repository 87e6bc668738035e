"""What a study says about itself: a line per trial on the terminal, `report/` and the figures of `result.json`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.redact import redact
from jobs.runs import Run
from jobs.settings import Settings
from jobs.tuning import plots, record
from jobs.tuning.plan import limit_s
from jobs.tuning.record import Trial
from jobs.tuning.settings import Value
from jobs.tuning.winner import BEST


def line(found: Mapping[int, Trial], number: int) -> str:
    """One trial that ended, for the terminal."""
    trial = found[number]
    steps = f"{trial.trained_steps}/{trial.reports[0].steps} steps" if trial.reports else "no evaluation"
    loss = f"held-out {trial.loss:.4f}" if trial.reports else ""
    note = trial.reason if trial.reason else "best so far" if record.best(found) is trial else ""
    told = f"{trial.outcome}".replace("_", " ")
    return f"trial {number:>3}  {told:<13}  {steps:<15}  {loss:<15}  {_values(trial.parameters)}  {note}".rstrip()


def figures(settings: Settings, found: Mapping[int, Trial], best: Trial, seconds: float) -> dict[str, Any]:
    """What `result.json` holds. `seconds` is the time that the study took, pauses not counted."""
    assert best.best is not None
    return {
        "trials": len(found),
        "outcomes": record.outcomes(found),
        "ended_by": _ended_by(settings, found, seconds),
        "best_trial": best.number,
        "best_step": best.best.step,
        "best_eval_loss": best.loss,
        "best_parameters": best.parameters,
        "training_steps": sum(trial.trained_steps for trial in found.values()),
        "training_steps_without_stopping": sum(t.reports[0].steps for t in found.values() if t.reports),
        "seconds": round(seconds, 1),
    }


def _ended_by(settings: Settings, found: Mapping[int, Trial], seconds: float) -> str:
    if len(found) == settings.tune.samples and "cut_off" not in record.outcomes(found):
        return "tune.samples"
    time_s = settings.tune.time_budget_s
    return "tune.time_budget_s" if time_s and limit_s(settings) == time_s else "cost.run_budget_usd"


def summary(run: Run, result: Mapping[str, Any]) -> str:
    """The last lines on the terminal."""
    saved = 1 - result["training_steps"] / result["training_steps_without_stopping"]
    why = "" if result["ended_by"] == "tune.samples" else f"; {result['ended_by']} is spent"
    cost = f", {result['cost']['usd']:.2f} USD" if "cost" in result else ""
    values = " ".join(f"{key}={value}" for key, value in result["best_parameters"].items())
    given = f"@{run.address(BEST)}" if run.storage.is_local else values
    return (
        f"{result['trials']} trials in {result['seconds'] / 60:.1f} min{cost}{why}; {result['training_steps']:,} "
        f"training steps, {saved:.0%} saved by stopping early\n"
        f"best: trial {result['best_trial']}, held-out loss {result['best_eval_loss']:.4f}  "
        f"{_values(result['best_parameters'])}\n"
        f"  report   {run.address('report/report.md')}\n"
        f"  train with it: make train SET='{given}', with this study's CONFIG"
    )


def publish(settings: Settings, run: Run, result: Mapping[str, Any], found: Mapping[int, Trial]) -> None:
    """Write `report/`: `report.json`, `report.md` and the plots."""
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        target = Path(scratch)
        drawn = plots.draw(settings, found, target)
        trials = [vars(trial) | {"reports": [vars(r) for r in trial.reports]} for trial in found.values()]
        text = json.dumps({"result": result, "trials": trials}, ensure_ascii=False, indent=2)
        (target / "report.json").write_text(redact(text) + "\n", encoding="utf-8")
        (target / "report.md").write_text(redact(_markdown(run, result, found, drawn)), encoding="utf-8")
        run.publish(target, "report")


def _markdown(run: Run, result: Mapping[str, Any], found: Mapping[int, Trial], drawn: list[str]) -> str:
    keys = list(result["best_parameters"])
    rows = "".join(
        f"| {t.number} | {t.outcome} | {t.trained_steps} | {f'{t.loss:.4f}' if t.reports else ''} | "
        + " | ".join(_short(t.parameters[key]) for key in keys)
        + f" | {_one_line(t.reason or '')} |\n"
        for t in sorted(found.values(), key=lambda trial: (not trial.sound, trial.loss, trial.number))
    )
    counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in result["outcomes"].items())
    images = "".join(f"\n![{name.removesuffix('.png')}]({name})\n" for name in drawn)
    return f"""# {run.id}

Best: trial {result["best_trial"]}, held-out loss {result["best_eval_loss"]:.4f} nats per token after \
{result["best_step"]} steps. Its values are in `{BEST}`.

| study | |
|---|---|
| trials | {result["trials"]} ({counted}) |
| ended by | `{result["ended_by"]}` |
| optimiser steps, all trials | {result["training_steps"]:,} |
| the same trials without stopping | {result["training_steps_without_stopping"]:,} |
| minutes | {result["seconds"] / 60:.1f} |
| cost | {f"{result['cost']['usd']:.2f} USD" if "cost" in result else "no price given"} |
{images}
## Trials, best first

| trial | outcome | steps | held-out loss | {" | ".join(keys)} | reason |
|{"---|" * (len(keys) + 5)}
{rows}"""


def _values(parameters: Mapping[str, Value]) -> str:
    return " ".join(f"{key.partition('.')[2]}={_short(value)}" for key, value in parameters.items())


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
