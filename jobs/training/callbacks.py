"""What happens at each step beside the step itself: the curve, the guard, the checkpoint, the wish to stop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from jobs.errors import Diverged
from jobs.training.feed import Feed

Emit = Callable[[int, int, dict[str, float]], None]
Report = Callable[[int, float | None, Path], None]

_DROPPED = {"epoch", "total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second"}


class Curve(TrainerCallback):  # type: ignore[misc]
    """Hands each logged point to `emit(step, steps, values)`, with tokens since the last one and per second, padding
    not counted, and what a step took.

    The clock runs only while steps run: evaluations and checkpoints are not in the figures.
    """

    def __init__(
        self, emit: Emit, feed: Feed | None = None, utilisation: Callable[[float], float] | None = None
    ) -> None:
        """`utilisation` turns tokens per second into a share of what the hardware could do."""
        self._emit = emit
        self._feed = feed or Feed()
        self._utilisation = utilisation
        self._steps_before = 0
        self._busy_s = 0.0
        self._started = 0.0
        self._tokens_before = 0.0
        self.step_seconds: list[float] = []
        self.tokens = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.step_seconds.append(time.perf_counter() - self._started)
        self._busy_s += self.step_seconds[-1]

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        values = {k: float(v) for k, v in logs.items() if isinstance(v, int | float) and k not in _DROPPED}
        if "loss" in values and "num_tokens" in values:
            self.tokens = values.pop("num_tokens")
            values |= self._since_last_point()
        self._emit_finite(state, values)

    def _since_last_point(self) -> dict[str, float]:
        tokens, steps, busy_s = (
            self.tokens - self._tokens_before,
            len(self.step_seconds) - self._steps_before,
            self._busy_s,
        )
        self._tokens_before, self._steps_before, self._busy_s = self.tokens, len(self.step_seconds), 0.0
        fed = self._feed.take(steps)
        if not busy_s:
            return fed
        speed = tokens / busy_s
        used = {"mfu_ratio": self._utilisation(speed)} if self._utilisation else {}
        return (
            {"tokens": tokens, "tokens_per_second": speed, "busy_seconds": busy_s, "step_seconds": busy_s / steps}
            | used
            | fed
        )

    def _emit_finite(self, state: TrainerState, values: dict[str, float]) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._emit(state.global_step, state.max_steps, finite)


class Guard(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose loss is not a number or has run away, with the reason."""

    window = 5

    def __init__(self, max_loss_ratio: float) -> None:
        self._max_loss_ratio = max_loss_ratio
        self._recent: deque[float] = deque(maxlen=self.window)
        self._best_mean = math.inf

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        for name in ("loss", "eval_loss", "grad_norm"):
            value = logs.get(name)
            if value is not None and not math.isfinite(value):
                raise Diverged(
                    f"{name} is {value} at step {state.global_step}; lower train.learning_rate "
                    f"(now {logs.get('learning_rate', 0.0):.2g}) or train.max_grad_norm, or set model.dtype=float32"
                )
        if "loss" not in logs:
            return
        self._recent.append(logs["loss"])
        if len(self._recent) < self.window:
            return
        mean = sum(self._recent) / self.window
        self._best_mean = min(self._best_mean, mean)
        if mean > self._best_mean * self._max_loss_ratio:
            raise Diverged(
                f"the loss rose to {mean:.3g} at step {state.global_step}, {mean / self._best_mean:.1f} times its best "
                f"({self._best_mean:.3g}); lower train.learning_rate, lengthen train.warmup, "
                "or raise train.max_loss_ratio"
            )


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Hands each checkpoint folder that the trainer wrote to `report(step, held_out_loss, folder)`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._score: tuple[int, float] | None = None

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        self._score = (state.global_step, metrics["eval_loss"])

    def on_save(self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        scored_now = self._score is not None and self._score[0] == state.global_step
        loss = self._score[1] if scored_now and self._score else None
        self._report(state.global_step, loss, Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StopOnRequest(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint and ends training at the next step boundary once `requested()` is true."""

    def __init__(self, requested: Callable[[], bool]) -> None:
        self._requested = requested
        self.stopped = False

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self._requested() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        return control
