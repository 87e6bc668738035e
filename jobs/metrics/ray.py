"""Metrics out of Ray's processes: Ray collects them on each node and serves them beside its own."""

from __future__ import annotations

from typing import Any

from jobs.metrics.definitions import PREFIX, Source, of


class Recorder:
    """The metrics of one source under fixed labels. Where Ray does not run there is nobody to ask: calls do nothing.

    A call costs some microseconds and never waits; Ray sends values on every ten seconds. A gauge goes away with the
    process that set it.
    """

    def __init__(self, source: Source, **labels: str) -> None:
        self._labels = labels
        self._known: dict[str, Any] = {}
        import ray

        if not ray.is_initialized():
            return
        from ray.util import metrics

        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        for metric in of(source):
            made = kinds[metric.kind](PREFIX + metric.name, description=metric.help, tag_keys=metric.labels)
            self._known[metric.name] = made

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        if self._known:
            self._known[name].set(value, tags=self._labels | labels)

    def add(self, name: str, value: float) -> None:
        """Add to a counter; adding nothing is left out, as Ray refuses it."""
        if self._known and value > 0:
            self._known[name].inc(value, tags=self._labels)
