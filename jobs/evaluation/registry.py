"""Benchmarks by name."""

from __future__ import annotations

import difflib

from jobs.errors import UsageError
from jobs.evaluation.benchmark import Benchmark
from jobs.evaluation.choices import choices
from jobs.evaluation.harness import SUITES, Harness
from jobs.evaluation.held_out import HeldOut
from jobs.evaluation.kmmlu_cot import kmmlu_cot
from jobs.evaluation.prompts import Prompts
from jobs.evaluation.settings import EvaluateSettings
from jobs.settings import DataSettings

NAMES = ("held-out", "choices", "prompts", "kmmlu-cot", *SUITES)


def check_names(settings: EvaluateSettings) -> None:
    """Raises UsageError naming the nearest benchmark for one that is not known."""
    for name in settings.benchmarks:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(NAMES)}"
            raise UsageError(f"evaluate.benchmarks: unknown benchmark {name!r}; {hint}")


def prepare(settings: EvaluateSettings, data: DataSettings) -> list[Benchmark]:
    """The benchmarks asked for, each with its input read and checked. `data` is what the subject was trained on.

    Raises UsageError for wrong input, EnvironmentNotReady for what is not installed or not there.
    """
    return [_prepare(name, settings, data) for name in dict.fromkeys(settings.benchmarks)]


def _prepare(name: str, settings: EvaluateSettings, data: DataSettings) -> Benchmark:
    match name:
        case "held-out":
            return HeldOut(settings, data)
        case "choices":
            return choices(settings)
        case "prompts":
            return Prompts(settings)
        case "kmmlu-cot":
            return kmmlu_cot(settings)
        case _:
            return Harness(name, settings)
