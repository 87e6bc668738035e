"""What is beside Ray: the gateway, MLflow, S3, and whether everything could be seen."""

from __future__ import annotations

from collections.abc import Iterator

from ops.health.checks.clusters import pod_problem
from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Observed
from ops.health.settings import HealthSettings


def sources(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """What could not be seen is not healthy."""
    away = any(probe.problem for probe in observed.stores)
    for name, reason in sorted(observed.unseen.items()):
        if not (name == "backups" and away):  # said already
            yield Finding(Id.SOURCE_UNSEEN, name, Severity.CRITICAL, f"{name} cannot be seen: {reason}")


def gateway(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Whether the gateway takes requests, and its pods."""
    if observed.gateway and observed.gateway.problem:
        sentence = f"the gateway is not ready at {observed.gateway.address}: {observed.gateway.problem}"
        yield Finding(Id.GATEWAY_DOWN, "Deployment/gateway", Severity.CRITICAL, sentence)
    for pod in observed.pods:
        problem = pod_problem(pod, observed.at, settings.start_s) if pod.role == "gateway" else ""
        if problem:
            target = f"Pod/{pod.name}"
            yield Finding(Id.GATEWAY_POD_DOWN, target, Severity.WARNING, f"gateway {problem}", "Deployment/gateway")


def tracking(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """MLflow. Runs go on without it, and catch up."""
    if observed.tracking and observed.tracking.problem:
        sentence = f"MLflow does not answer at {observed.tracking.address}: {observed.tracking.problem}"
        yield Finding(Id.TRACKING_DOWN, "MLflow", Severity.CRITICAL, sentence)


def stores(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Buckets, as the checker's own credentials reach them."""
    for probe in observed.stores:
        if probe.problem:
            sentence = f"{probe.address} cannot be reached: {probe.problem}"
            yield Finding(Id.STORE_DOWN, probe.address, Severity.CRITICAL, sentence)
