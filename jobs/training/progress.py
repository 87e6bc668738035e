"""What a person sees while a run works: a bar on a terminal, elsewhere one line a minute and at each evaluation."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S = 60.0


class ProgressDisplay:
    """Context manager whose `point(step, steps, values)` shows one point of the curve. `title` says what is going on,
    `unit` what is counted."""

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        title: str = "training",
        unit: str = "step",
    ) -> None:
        self._console = console or Console(file=sys.stderr)
        self._clock = clock
        self._unit = unit
        self._values: dict[str, float] = {}
        self._started: tuple[float, int] | None = None
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, figures="")

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def point(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Show the newest figures; called at every log point and evaluation."""
        now = self._clock()
        self._values |= values
        self._started = self._started or (now, step)
        figures = self._figures()
        self._bar.update(self._task, completed=step, total=steps, figures=figures)
        if not self._console.is_terminal and (now - self._last_line >= _LINE_EVERY_S or "eval_loss" in values):
            self._last_line = now
            since, first = self._started
            left = f"  {(now - since) / (step - first) * (steps - step):.0f} s left" if step > first else ""
            self._console.print(f"{self._unit} {step}/{steps}  {figures}{left}", highlight=False)

    def count(self, done: int, total: int) -> None:
        """Show how far something without figures is."""
        self.point(done, total, {})

    def _figures(self) -> str:
        shown = (("loss", "loss {:.3f}"), ("eval_loss", "held-out {:.3f}"), ("tokens_per_second", "{:.0f} tokens/s"))
        return "  ".join(text.format(self._values[name]) for name, text in shown if name in self._values)
