"""Metrics out of Ray's processes: Ray collects them on each node and serves them beside its own."""

from __future__ import annotations

import threading
from typing import Any

from jobs.metrics.definitions import PREFIX, Source, of

_AGAIN_S = 1.0


class Recorder:
    """The metrics of one source under fixed labels. Where Ray does not run there is nobody to ask: calls do nothing.

    A call costs some microseconds and never waits. Ray sends a value on once and forgets a gauge that is not set again
    for twice its interval of ten seconds; so a thread sets them again, or a run that stands still would vanish from the
    dashboards, and with it the alert that it stands still. They go away when the recorder is closed, or its process is
    gone.
    """

    def __init__(self, source: Source, **labels: str) -> None:
        self._labels = labels
        self._known: dict[str, Any] = {}
        self._last: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._closed = threading.Event()
        import ray

        if not ray.is_initialized():
            return
        from ray.util import metrics

        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        for metric in of(source):
            made = kinds[metric.kind](PREFIX + metric.name, description=metric.help, tag_keys=metric.labels)
            self._known[metric.name] = made
        threading.Thread(target=self._keep, name="metrics", daemon=True).start()

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        if self._known:
            self._last[name, tuple(labels.items())] = value
            self._known[name].set(value, tags=self._labels | labels)

    def add(self, name: str, value: float) -> None:
        """Add to a counter; adding nothing is left out, as Ray refuses it."""
        if self._known and value > 0:
            self._known[name].inc(value, tags=self._labels)

    def close(self) -> None:
        """Let go of the gauges."""
        self._closed.set()

    def _keep(self) -> None:
        while not self._closed.wait(_AGAIN_S):
            for (name, labels), value in list(self._last.items()):
                self._known[name].set(value, tags=self._labels | dict(labels))
