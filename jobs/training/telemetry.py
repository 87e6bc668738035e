"""What Prometheus hears of a run: the points of its curve, its checkpoints and its cost. Rank 0 speaks."""

from __future__ import annotations

import time
from collections.abc import Callable

from jobs.costs.meter import Meter
from jobs.metrics.ray import Recorder

_FROM_VALUES = {
    "loss": "train_loss",
    "eval_loss": "train_held_out_loss",
    "step_seconds": "train_step_seconds",
    "data_wait_seconds": "train_data_wait_seconds",
    "tokens_per_second": "train_tokens_per_second",
    "padding_ratio": "train_padding_ratio",
    "mfu_ratio": "train_mfu_ratio",
}
"""Metrics by the value of a point that they take."""


class Telemetry:
    """The metrics of one run in this process."""

    def __init__(self, run_id: str, meter: Meter, clock: Callable[[], float] = time.time) -> None:
        self._recorder = Recorder("train", run=run_id)
        self.meter, self._clock = meter, clock
        self.checkpoint()
        if meter.budget_usd is not None:
            self._recorder.set("run_budget_usd", meter.budget_usd)

    def point(self, step: int, steps: int, values: dict[str, float]) -> None:
        """One point of the curve."""
        self.meter.point(values)
        record = self._recorder
        record.set("train_step", step)
        record.set("train_steps", steps)
        record.set("train_last_step_timestamp_seconds", self._clock())
        record.add("train_tokens_total", values.get("tokens", 0.0))
        for name, metric in _FROM_VALUES.items():
            if name in values:
                record.set(metric, values[name])
        cost = self.meter.cost()
        if cost:
            record.set("run_cost_usd", cost.usd)
            record.set("run_idle_cost_usd", cost.idle_usd)

    def checkpoint(self) -> None:
        """A checkpoint is safe."""
        self._recorder.set("train_last_checkpoint_timestamp_seconds", self._clock())

    def close(self) -> None:
        """The run is over in this process."""
        self._recorder.close()
