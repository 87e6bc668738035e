"""What Prometheus is told: the metrics of jobs/metrics, in a registry of this process's own."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jobs.metrics.definitions import PREFIX, SECONDS, find

M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests_total")
        self.duration = self._seconds("request_duration_seconds")
        self.first_token = self._seconds("time_to_first_token_seconds")
        self.tokens = self._counter("tokens_total")
        self.connections = self._gauge("connections")
        self.active = self._gauge("active_requests")
        self.queued = self._gauge("queued_requests")
        self.retries = self._counter("retries_total")
        self.variant_failures = self._counter("variant_failures_total")
        self.cuts = self._counter("stream_cuts_total")
        self.ejected = self._gauge("ejected_urls")
        self.shadow = self._counter("shadow_requests_total")
        self.shadow_duration = self._seconds("shadow_duration_seconds")
        self.feedback = self._counter("feedback_total")
        self.reloads = self._counter("config_reloads_total")
        self.refused = self._gauge("config_refused")

    def _counter(self, name: str) -> Counter:
        metric = find(f"gateway_{name}")
        return _quick(Counter(PREFIX + metric.name, metric.help, metric.labels, registry=self.registry))

    def _gauge(self, name: str) -> Gauge:
        metric = find(f"gateway_{name}")
        return _quick(Gauge(PREFIX + metric.name, metric.help, metric.labels, registry=self.registry))

    def _seconds(self, name: str) -> Histogram:
        metric = find(f"gateway_{name}")
        return _quick(
            Histogram(PREFIX + metric.name, metric.help, metric.labels, registry=self.registry, buckets=SECONDS)
        )


def _quick(metric: M) -> M:
    """With each combination of labels looked up once: the library takes a lock and 2 µs every time."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric
