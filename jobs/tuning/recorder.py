"""What Ray Tune tells about trials, as events of the study. Kept apart because its base classes import Ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Callback
from ray.tune import Stopper as TuneStopper

from jobs.runs import EventLog
from jobs.settings import Settings
from jobs.tuning import record, space
from jobs.tuning.record import Outcome, Report, Trial, fields_of
from jobs.tuning.telemetry import Telemetry


class Recorder(Callback):  # type: ignore[misc]
    """Appends an event per start, evaluation and end of a trial, and tells `ended` which trial is over."""

    def __init__(self, settings: Settings, events: EventLog, ended: Callable[[int], None]) -> None:
        self._settings = settings
        self._events = events
        self._ended = ended
        self._telemetry = Telemetry(events.run.id)
        self._said: dict[int, tuple[Outcome, str | None]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._start(trial)

    def close(self) -> None:
        """The study ends in this process."""
        self._telemetry.close()

    def _start(self, trial: Any) -> None:
        draw = trial.config["draw"]
        self._events.append(
            record.STARTED,
            trial=_number(trial),
            draw=draw,
            parameters=space.parameters(self._settings, draw),
        )
        self._telemetry.tell(record.trials(self._events.read()))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if "outcome" in result:
            self._said[_number(trial)] = (result["outcome"], result["reason"])
            return
        report = Report(result["step"], result["steps"], result["eval_loss"])
        self._events.append(record.REPORT, trial=_number(trial), **fields_of(report))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        number = _number(trial)
        tune, last = self._settings.tune, self._found(number).reports[-1:]
        whole = bool(last) and record.progress(last[0], tune.evaluations) >= tune.longest
        outcome, reason = self._said.get(number) or ("completed" if whole else "stopped", None)
        self._end(number, outcome, reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        error = _error_of(trial)
        cause = getattr(error, "cause", error)
        outcome: Outcome = "failed"
        if isinstance(cause, MemoryError | OutOfMemoryError):
            outcome = "out_of_memory"
        elif isinstance(error, RayActorError):
            outcome = "died"
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = "its process ended: " + " ".join(lines) if outcome == "died" else lines[-1]
        if _number(trial) not in record.trials(self._events.read()):
            self._start(trial)  # its process failed before Tune called it started
        self._end(_number(trial), outcome, reason[:500])

    def _end(self, number: int, outcome: Outcome, reason: str | None) -> None:
        self._events.append(record.ENDED, trial=number, outcome=outcome, reason=reason)
        self._telemetry.tell(record.trials(self._events.read()))
        self._ended(number)

    def _found(self, number: int) -> Trial:
        return record.trials(self._events.read())[number]


class Stopper(TuneStopper):  # type: ignore[misc]
    """Ends the study when `over()` says so."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a snapshot of itself that we do not use: a study resumes from its events

    def stop_all(self) -> bool:
        return self._over()


def _error_of(trial: Any) -> Any:
    """What Tune just wrote on its disk; `trial.get_pickled_error()` looks for a copy that is made some time later."""
    pickled = Path(trial.pickled_error_file)
    return pickle.loads(pickled.read_bytes()) if pickled.exists() else Path(trial.error_file).read_text()


def _number(trial: Any) -> int:
    return int(trial.config["number"])
