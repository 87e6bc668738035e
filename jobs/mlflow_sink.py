"""Puts the events of one run into MLflow, each once.

How far MLflow has acknowledged is kept in the run's `tracking.json`. If a crash comes between the acknowledgement and
that note, some events are sent twice, which changes nothing: the MLflow run is found again by its tag, parameters are
sent only if absent, and MLflow takes a metric with the same name, step, value and time for the same point.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.events import Event, events_file
from jobs.mlflow_client import SQLITE, connect, explained
from jobs.run_lock import file_lock
from jobs.runs import Run
from jobs.settings import TrackingSettings
from jobs.storage import NotFound
from jobs.tuning.record import ENDED, STARTED
from jobs.tuning.record import REPORT as REPORTED

if TYPE_CHECKING:
    from mlflow.entities import Metric

_T = TypeVar("_T")

TRACKING = "tracking.json"
REPORT = "report"
RUN_TAG = "haetsal.run"

_TRIAL_EVENTS = (STARTED, REPORTED, ENDED)
_TURNING_POINTS = ("config", "failed", "result", *_TRIAL_EVENTS)
"""Kinds of events that do more than add metrics, so a batch ends with them."""
_STATUS = {"completed": "FINISHED", "stopped": "KILLED", "cut_off": "KILLED"}
_EVENTS_PER_BATCH = 100
_METRICS_PER_REQUEST = 1000
_PARAMS_PER_REQUEST = 100
"""The two limits of MLflow's log-batch call (mlflow/utils/validation.py)."""


class MlflowSink:
    """The MLflow side of one run. Get it with `open_sink`."""

    def __init__(self, run: Run, tracking: TrackingSettings, uri: str) -> None:
        self._client = connect(uri, tracking.timeout_s)
        self._run = run
        self._uri = uri
        self._experiment = tracking.experiment
        self._mlflow_run_id: str | None
        self._mlflow_run_id, self.sent_seq = _read_cursor(run, uri)
        self._trial_runs: dict[int, str] = {}

    def send(self, events: Sequence[Event]) -> int:
        """Send those of `events` that MLflow has not acknowledged, and return how many they were.

        Metrics come from "metrics", "phase" and "result", parameters from "config", the report folder and the status
        from "result" and "failed". The trials of a study become runs of their own below its run.

        Raises RemoteError when MLflow does not take them; what it had acknowledged until then stays noted, so the next
        call goes on there.
        """
        sent = 0
        with explained(self._uri):
            for batch in _batches([event for event in events if event.seq > self.sent_seq]):
                self._send_batch(batch)
                sent += len(batch)
        return sent

    def _send_batch(self, batch: Sequence[Event]) -> None:
        run_id = self._mlflow_run_id or self._find_or_create_run(batch[0])
        metrics = [metric for event in batch for metric in _metrics(event)]
        for chunk in _chunks(metrics, _METRICS_PER_REQUEST):
            self._client.log_batch(run_id, metrics=chunk)
        last = batch[-1]
        match last.kind:
            case "config":
                self._begin(run_id, last)
            case "failed":
                self._client.set_tag(run_id, "haetsal.failure", str(last.fields.get("reason")))
                status = "KILLED" if last.fields.get("type") == "Interrupted" else "FAILED"
                self._client.set_terminated(run_id, status, end_time=_milliseconds(last))
            case "result":
                self._log_report(run_id)
                self._client.set_terminated(run_id, "FINISHED", end_time=_milliseconds(last))
            case kind if kind in _TRIAL_EVENTS:
                self._send_trial(run_id, last)
        self.sent_seq = last.seq
        self._save_cursor()

    def _find_or_create_run(self, first: Event) -> str:
        self._mlflow_run_id = self._find_or_create(self._run.id, first, {})
        self._save_cursor()
        return self._mlflow_run_id

    def _find_or_create(self, name: str, first: Event, tags: dict[str, str]) -> str:
        experiment_id = self._experiment_id()
        found = self._client.search_runs(
            [experiment_id], f"tags.`{RUN_TAG}` = '{name}'", max_results=1, order_by=["attributes.start_time"]
        )
        if found:
            return str(found[0].info.run_id)
        created = self._client.create_run(
            experiment_id, start_time=_milliseconds(first), tags={RUN_TAG: name} | tags, run_name=name
        )
        return str(created.info.run_id)

    def _send_trial(self, parent: str, event: Event) -> None:
        """One event of a trial: its parameters, a loss, or how it ended."""
        from mlflow.entities import Metric, Param

        number, fields = event.fields["trial"], event.fields
        if number not in self._trial_runs:
            name = f"{self._run.id}/{number:04d}"
            self._trial_runs[number] = self._find_or_create(name, event, {"mlflow.parentRunId": parent})
        run_id = self._trial_runs[number]
        if event.kind == STARTED:
            self._client.log_batch(run_id, params=[Param(k, str(v)) for k, v in fields["parameters"].items()])
            self._client.update_run(run_id, status="RUNNING")
        elif event.kind == REPORTED:
            point = Metric("eval_loss", fields["eval_loss"], _milliseconds(event), fields["step"])
            self._client.log_batch(run_id, metrics=[point])
        else:
            for tag in ("outcome", "reason"):
                self._client.set_tag(run_id, f"haetsal.{tag}", str(fields[tag]))
            status = _STATUS.get(fields["outcome"], "FAILED")
            self._client.set_terminated(run_id, status, end_time=_milliseconds(event))

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        if found := self._client.get_experiment_by_name(self._experiment):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment, artifact_location=self._artifact_location()))
        except MlflowException:
            if found := self._client.get_experiment_by_name(self._experiment):  # another run was faster
                return str(found.experiment_id)
            raise

    def _artifact_location(self) -> str | None:
        """A server knows where its artifacts go; for SQLite they go beside the runs."""
        if not self._uri.startswith(SQLITE):
            return None
        storage = self._run.storage
        return storage.local_path("mlartifacts").as_uri() if storage.is_local else storage.address("mlartifacts")

    def _begin(self, run_id: str, config: Event) -> None:
        """Parameters of a first start; a resumed run has them, and only goes back to running."""
        from mlflow.entities import Param

        known = self._client.get_run(run_id).data.params
        params = [Param(k, str(v)) for k, v in _flat(config.fields.get("settings", {})).items() if k not in known]
        for chunk in _chunks(params, _PARAMS_PER_REQUEST):
            self._client.log_batch(run_id, params=chunk)
        if revision := config.fields.get("git_revision"):
            self._client.set_tag(run_id, "mlflow.source.git.commit", revision)
        self._client.update_run(run_id, status="RUNNING")

    def _log_report(self, run_id: str) -> None:
        storage, rel = self._run.storage, self._run.path(REPORT)
        if not storage.exists(rel):
            return
        if storage.is_local:
            self._client.log_artifacts(run_id, str(storage.local_path(rel)), REPORT)
        else:
            with tempfile.TemporaryDirectory() as folder:
                storage.download_tree(rel, Path(folder))
                self._client.log_artifacts(run_id, folder, REPORT)

    def _save_cursor(self) -> None:
        cursor = {"uri": self._uri, "mlflow_run_id": self._mlflow_run_id, "sent_seq": self.sent_seq}
        self._run.storage.write(self._run.path(TRACKING), json.dumps(cursor).encode())


@contextmanager
def open_sink(run: Run, tracking: TrackingSettings, uri: str) -> Iterator[MlflowSink]:
    """The only sink of this run on this machine; waits for another one, such as that of a run that was just killed.

    This imports MLflow, which takes 5 to 15 seconds of CPU, and creates a missing SQLite database. It does not talk to
    a server yet.
    """
    with file_lock(events_file(run).with_name(f".{run.id}.shipping"), wait=True):
        yield MlflowSink(run, tracking, uri)


def _read_cursor(run: Run, uri: str) -> tuple[str | None, int]:
    """MLflow's run id and the last event it has; a fresh start if events went to another server before."""
    try:
        cursor = json.loads(run.storage.read(run.path(TRACKING)))
    except NotFound:
        return None, 0
    return (cursor["mlflow_run_id"], cursor["sent_seq"]) if cursor["uri"] == uri else (None, 0)


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if event.kind in _TURNING_POINTS or len(batch) == _EVENTS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _metrics(event: Event) -> list[Metric]:
    from mlflow.entities import Metric

    match event.kind:
        case "metrics":
            values = event.fields["values"]
        case "phase":
            values = {f"phase/{event.fields['name']}_seconds": event.fields["seconds"]}
        case "result":
            values = {f"result/{name}": value for name, value in _flat(event.fields).items()}
        case _:
            return []
    step = event.fields.get("step", 0)
    numbers = {name: _number(value) for name, value in values.items()}
    return [Metric(name, n, _milliseconds(event), step) for name, n in numbers.items() if n is not None]


def _number(value: Any) -> float | None:
    """A number, also one that JSON had to spell out; None for anything else."""
    if value in ("nan", "inf", "-inf") or (isinstance(value, int | float) and not isinstance(value, bool)):
        return float(value)
    return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _chunks(items: list[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _milliseconds(event: Event) -> int:
    return int(event.time_unix_s * 1000)
