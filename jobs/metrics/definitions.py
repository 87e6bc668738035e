"""Every metric of our own, as data: nothing is exported that does not stand here, and README.md is written from here.

Names follow Prometheus: unit last, counters end in `_total`, times are seconds, moments are seconds since 1970. Labels
take their values from files that a person writes and from run ids, never from requests, so their number is bounded:
`tests/unit/test_metrics.py` holds each label against `LABELS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["train", "tune", "gateway", "operations"]

PREFIX = "haetsal_"
RAY_PREFIX = "ray_"
"""What Ray puts before the names that its processes export."""

LABELS: dict[str, str] = {
    "run": "id of a run that is at work: as many as there are runs at a time",
    "state": "running, or an outcome of a trial: eight",
    "group": "training, preprocessing, inference",
    "model": "a name from the gateway's file, empty before it is known",
    "variant": "a name from the gateway's file, empty where none answered",
    "backend": "a name from the gateway's file",
    "status": "an HTTP status that the gateway gives, 499 or cut: twenty",
    "key": "id of an API key, from the keys file",
    "kind": "prompt, completion",
    "reason": "why a try failed: a word of ours or a class of statuses, a dozen",
    "outcome": "ok, failed, skipped",
    "thumb": "up, down, none",
    "result": "taken, refused",
}
"""Every label and why its values are few."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the histograms' buckets."""


@dataclass(frozen=True)
class Metric:
    """One metric. `name` is without the prefixes; `help` is a line that also says when it is absent."""

    source: Source
    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        ray = RAY_PREFIX if self.source in ("train", "tune") else ""
        return f"{ray}{PREFIX}{self.name}"


_RUN = ("run",)
_SIDE = ("model", "variant")

DEFINITIONS: tuple[Metric, ...] = (
    Metric("train", "train_tokens_total", "counter", "tokens", "Tokens trained on, padding not counted", _RUN),
    Metric("train", "train_step", "gauge", "steps", "Optimiser steps done", _RUN),
    Metric("train", "train_steps", "gauge", "steps", "Optimiser steps planned", _RUN),
    Metric(
        "train", "train_step_seconds", "gauge", "s", "Mean time of an optimiser step since the last log point", _RUN
    ),
    Metric("train", "train_data_wait_seconds", "gauge", "s", "Of each step: the wait for its rows, before it", _RUN),
    Metric("train", "train_tokens_per_second", "gauge", "tokens/s", "While steps run, padding not counted", _RUN),
    Metric(
        "train", "train_padding_ratio", "gauge", "share", "Positions that are padding; 0 where rows are packed", _RUN
    ),
    Metric(
        "train",
        "train_mfu_ratio",
        "gauge",
        "share",
        "Useful FLOP/s over the GPU's peak in dense bf16; absent without a GPU of known peak",
        _RUN,
    ),
    Metric("train", "train_loss", "gauge", "nats/token", "Training loss at the last log point", _RUN),
    Metric("train", "train_held_out_loss", "gauge", "nats/token", "Loss of the last evaluation", _RUN),
    Metric("train", "train_last_step_timestamp_seconds", "gauge", "unix s", "When the last log point came", _RUN),
    Metric(
        "train",
        "train_last_checkpoint_timestamp_seconds",
        "gauge",
        "unix s",
        "When the last checkpoint was safe; the start before the first one",
        _RUN,
    ),
    Metric("train", "run_cost_usd", "gauge", "USD", "What the run has cost so far; absent without a price", _RUN),
    Metric("train", "run_idle_cost_usd", "gauge", "USD", "Of that, the time in which no optimiser step ran", _RUN),
    Metric("train", "run_budget_usd", "gauge", "USD", "What the run may cost; absent without a budget", _RUN),
    Metric("tune", "tune_trials", "gauge", "trials", "Trials of a study by state", ("run", "state")),
    Metric("tune", "tune_best_loss", "gauge", "nats/token", "Lowest held-out loss that a trial has reached", _RUN),
    Metric(
        "gateway",
        "gateway_requests_total",
        "counter",
        "requests",
        "Completions by answer; 499: the client left, cut: ended by an error event",
        (*_SIDE, "status", "key"),
    ),
    Metric(
        "gateway", "gateway_request_duration_seconds", "histogram", "s", "Of a good answer, to its last byte", _SIDE
    ),
    Metric(
        "gateway", "gateway_time_to_first_token_seconds", "histogram", "s", "Of a stream, to its first event", _SIDE
    ),
    Metric(
        "gateway",
        "gateway_tokens_total",
        "counter",
        "tokens",
        "Tokens by kind: prompt, completion",
        (*_SIDE, "kind", "key"),
    ),
    Metric("gateway", "gateway_connections", "gauge", "connections", "Clients that are connected"),
    Metric("gateway", "gateway_active_requests", "gauge", "requests", "Requests in work at a backend", ("backend",)),
    Metric("gateway", "gateway_queued_requests", "gauge", "requests", "Requests that wait for a place", ("backend",)),
    Metric(
        "gateway",
        "gateway_retries_total",
        "counter",
        "tries",
        "Tries that failed before the first byte",
        ("backend", "reason"),
    ),
    Metric(
        "gateway",
        "gateway_variant_failures_total",
        "counter",
        "requests",
        "Requests that a variant could not answer; another may have",
        _SIDE,
    ),
    Metric(
        "gateway",
        "gateway_stream_cuts_total",
        "counter",
        "streams",
        "Streams that ended with an error event",
        (*_SIDE, "reason"),
    ),
    Metric("gateway", "gateway_ejected_urls", "gauge", "addresses", "Addresses passed over for now", ("backend",)),
    Metric(
        "gateway",
        "gateway_shadow_requests_total",
        "counter",
        "requests",
        "Copies by outcome: ok, failed, skipped",
        ("model", "outcome"),
    ),
    Metric("gateway", "gateway_shadow_duration_seconds", "histogram", "s", "Of a copy's good answer", ("model",)),
    Metric(
        "gateway",
        "gateway_feedback_total",
        "counter",
        "answers",
        "Feedback by thumb: up, down, none",
        (*_SIDE, "thumb"),
    ),
    Metric("gateway", "gateway_config_reloads_total", "counter", "files", "Changed files: taken, refused", ("result",)),
    Metric(
        "gateway",
        "gateway_config_refused",
        "gauge",
        "0 or 1",
        "1 while the newest files are refused, older ones in force",
    ),
    Metric(
        "operations",
        "backup_last_successful_timestamp_seconds",
        "gauge",
        "unix s",
        "End of the newest Completed backup",
    ),
    Metric("operations", "backup_duration_seconds", "gauge", "s", "Of the last backup"),
    Metric("operations", "backup_bytes", "gauge", "bytes", "Stored size of all that the last backup lists"),
    Metric("operations", "backup_sent_bytes", "gauge", "bytes", "What of it was new and was sent"),
    Metric("operations", "backup_partially_failed", "gauge", "0 or 1", "1 if a source could not be read"),
    Metric("operations", "backup_failed", "gauge", "0 or 1", "1 if the last backup came to no manifest"),
    Metric(
        "operations", "restore_drill_last_success_timestamp_seconds", "gauge", "unix s", "When a drill last succeeded"
    ),
    Metric("operations", "restore_drill_duration_seconds", "gauge", "s", "How long it took to restore and compare"),
    Metric("operations", "restore_drill_backup_age_seconds", "gauge", "s", "Age of the backup at that moment"),
    Metric("operations", "restore_drill_objects", "gauge", "objects", "Kubernetes objects restored and compared"),
    Metric("operations", "restore_drill_failed", "gauge", "0 or 1", "1 if the last drill failed"),
    Metric(
        "operations", "retention_last_success_timestamp_seconds", "gauge", "unix s", "When retention last succeeded"
    ),
    Metric("operations", "retention_backups", "gauge", "backups", "Backups that are kept"),
    Metric("operations", "retention_deleted_bytes", "gauge", "bytes", "What the last retention deleted"),
    Metric(
        "operations", "health_last_check_timestamp_seconds", "gauge", "unix s", "When the checker last ended a round"
    ),
    Metric("operations", "health_findings_critical", "gauge", "findings", "Findings that are critical"),
    Metric("operations", "health_findings_warning", "gauge", "findings", "Findings that are warnings"),
    Metric("operations", "health_repairs_total", "counter", "repairs", "Repairs that were ever begun"),
    Metric("operations", "health_circuits_open", "gauge", "scopes", "Scopes that are not repaired any more"),
    Metric("operations", "health_channels_failing", "gauge", "channels", "Alert channels that took no alert"),
    Metric("operations", "cost_month_usd", "gauge", "USD", "What this month's runs have cost"),
    Metric("operations", "cost_month_idle_usd", "gauge", "USD", "Of that, the time in which no optimiser step ran"),
    Metric("operations", "cost_month_budget_usd", "gauge", "USD", "What a month may cost; absent without a budget"),
    Metric(
        "operations",
        "cost_usd_per_million_trained_tokens",
        "gauge",
        "USD",
        "Of this month's training runs; absent before the first token",
    ),
    Metric(
        "operations",
        "cost_machine_usd_per_hour",
        "gauge",
        "USD/h",
        "Price of a machine; absent without one",
        ("group",),
    ),
)

FROM_RAY = {
    "ray_node_gpus_utilization": "use of a GPU in percent, by NVML; absent without a GPU",
    "ray_node_gram_used": "memory used on a GPU in MB, by NVML; absent without a GPU",
}
"""Of Ray's own metrics, those that say what the GPUs do. Ours would say the same twice."""

OF_THE_SEED = {
    "requests": f"{PREFIX}gateway_requests_total",
    "inference duration": f"{PREFIX}gateway_request_duration_seconds",
    "active connections": f"{PREFIX}gateway_connections",
    "GPU utilisation": "ray_node_gpus_utilization",
}


def of(*sources: Source) -> Iterator[Metric]:
    """The metrics of these sources, in order."""
    return (metric for metric in DEFINITIONS if metric.source in sources)


def find(name: str) -> Metric:
    """The metric of this name, without prefixes. Raises KeyError."""
    for metric in DEFINITIONS:
        if metric.name == name:
            return metric
    raise KeyError(f"{name}: no such metric; add it to {__name__}")
