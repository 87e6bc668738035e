"""What Prometheus hears of a study: how many trials are in which state, and the best loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from jobs.metrics.ray import Recorder
from jobs.tuning import record
from jobs.tuning.record import Outcome, Trial

RUNNING = "running"
STATES: tuple[str, ...] = (RUNNING, *get_args(Outcome))


class Telemetry:
    """The metrics of one study in its driver."""

    def __init__(self, run_id: str) -> None:
        self._recorder = Recorder("tune", run=run_id)

    def tell(self, found: Mapping[int, Trial]) -> None:
        """Set all of them anew."""
        ended = record.outcomes(found)
        counted = {RUNNING: len(found) - sum(ended.values())} | ended
        for state in STATES:
            self._recorder.set("tune_trials", counted.get(state, 0), state=state)
        best = min((trial.loss for trial in found.values()), default=math.inf)
        if math.isfinite(best):
            self._recorder.set("tune_best_loss", best)

    def close(self) -> None:
        """The study is over in this process."""
        self._recorder.close()
