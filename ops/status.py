"""Last results of the operations: Prometheus text in one ConfigMap, which `ops/exporter.py` serves."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from jobs.errors import HaetsalError
from jobs.metrics.definitions import PREFIX, find
from ops.kinds import STATUS_CONFIG_MAP
from ops.kube import Cluster, Exists, Missing, Object

_log = logging.getLogger(__name__)


def exposition(values: Mapping[str, float | Mapping[str, float]]) -> str:
    """Prometheus text of metrics that are defined in jobs/metrics, by name without prefix.

    A metric with a label takes a mapping, by the label's value.
    """
    registry = CollectorRegistry()
    for name, value in values.items():
        metric = find(name)
        if isinstance(value, Mapping):
            gauge = Gauge(PREFIX + name, metric.help, metric.labels, registry=registry)
            for label, one in value.items():
                gauge.labels(label).set(one)
        elif metric.kind == "counter":
            Counter(PREFIX + name, metric.help, registry=registry).inc(value)
        else:
            Gauge(PREFIX + name, metric.help, registry=registry).set(value)
    lines = generate_latest(registry).decode().splitlines(keepends=True)
    return "".join(line for line in lines if "_created" not in line)  # a counter's start is that of this process


def publish(cluster: Cluster, namespace: str, key: str, text: str) -> None:
    """Replace one key of the ConfigMap, which is made if it is not there."""
    body: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": STATUS_CONFIG_MAP, "namespace": namespace},
        "data": {f"{key}.prom": text},
    }
    try:
        cluster.merge("", body)
    except Missing:
        try:
            cluster.create("", body)
        except Exists:
            cluster.merge("", body)


@contextmanager
def outcome(cluster: Cluster, namespace: str, operation: str) -> Iterator[None]:
    """Publish `<operation>_failed`: 1 if the block raises HaetsalError, which goes on its way, else 0."""
    try:
        yield
    except HaetsalError:
        try:
            publish(cluster, namespace, f"{operation}-outcome", exposition({f"{operation}_failed": 1}))
        except HaetsalError as error:  # the cluster may be what failed
            _log.warning("the failure is not published: %s", error)
        raise
    publish(cluster, namespace, f"{operation}-outcome", exposition({f"{operation}_failed": 0}))
