"""Last results of backup, retention and drill: Prometheus text in one ConfigMap, which the health checker serves."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from ops.kinds import STATUS_CONFIG_MAP
from ops.kube import Cluster, Exists, Missing, Object


def exposition(values: dict[str, float], texts: dict[str, str]) -> str:
    """Prometheus text of gauges; `texts` are their help lines."""
    registry = CollectorRegistry()
    for name, value in values.items():
        Gauge(name, texts[name], registry=registry).set(value)
    return generate_latest(registry).decode()


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
