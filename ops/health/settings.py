"""Knobs of health checks, recovery and alerts; `ops/settings.py` joins them into the tree.

Addresses that are secrets (a webhook, Slack's) are never settings: a setting names the file that holds one, where a
Secret is mounted.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from jobs.section import Address, Section


class HealthSettings(Section):
    """What is looked at, and from when on it counts as wrong."""

    clusters: tuple[str, ...] = ()
    """RayClusters that must be there; one that is gone is brought back from the newest backup."""
    services: tuple[str, ...] = ()
    """RayServices that must be there; the same."""
    operator: str = Field("ray-system/kuberay-operator", pattern=r"^[^/]+/[^/]+$")
    """Namespace and name of KubeRay's Deployment."""
    gateway: Address | None = None
    """The gateway, asked at /readyz; none: there is none."""
    serve: str = "http://{service}-serve-svc.{namespace}.svc:8000"
    """Where a RayService answers requests, asked at /-/healthz."""
    certificates: tuple[str, ...] = ()
    """`host:port` of further TLS servers whose certificates are watched; the API server's always is."""
    probe_timeout_s: float = Field(5, gt=0, le=60)
    """Longest wait for one answer."""
    deadline_s: float = Field(20, gt=0, le=300)
    """Longest time for one look at everything; what has not answered by then counts as not seen."""
    interval_s: float = Field(15, ge=1, le=3600)
    """Between two looks of a watch; varied by a fifth, so that looking never keeps step with what comes and goes."""
    start_s: float = Field(900, gt=0, le=86_400)
    """A pod, cluster, service or application that has not come up for so long is stuck. GPU nodes take minutes."""
    run_s: float = Field(1800, gt=0, le=604_800)
    """A run that has waited so long for its cluster is stuck."""
    certificate_days: float = Field(21, gt=0, le=365)
    """A certificate that ends within so many days is told."""
    backup_age_s: float = Field(3 * 3600, gt=0, le=31_536_000)
    """An older newest backup is stale. The chart's runs hourly; its alert BackupStale has the same limit."""
    drill_age_s: float | None = Field(8 * 86_400, gt=0, le=31_536_000)
    """A drill that last succeeded longer ago is stale. The chart's runs weekly. None: there are no drills."""


class RecoverySettings(Section):
    """When a repair is made."""

    confirm_s: float = Field(30, ge=0, le=3600)
    """Something must have been wrong for so long without a break before it is repaired or told."""
    recreate_after_s: float = Field(600, ge=0, le=86_400)
    """The same for the largest repair, which deletes a cluster."""
    window_s: float = Field(300, gt=0, le=86_400)
    """Shortest time between two repairs of one target; doubled after each."""
    backoff_max_s: float = Field(3600, gt=0, le=604_800)
    """Longest time between two repairs of one target, before its circuit opens."""
    attempts: int = Field(3, ge=1, le=20)
    """After so many repairs that did not help the circuit opens: a person is needed."""
    circuit_s: float = Field(4 * 3600, gt=0, le=604_800)
    """How long a circuit stays open until one more repair is tried."""
    calm_s: float = Field(900, gt=0, le=86_400)
    """Healthy for so long without a break, a target's repairs are forgotten and its alerts called resolved."""
    flaps: int = Field(4, ge=2, le=100)
    """A target that has become unhealthy so many times within `flap_window_s` flaps: it is told, and not repaired."""
    flap_window_s: float = Field(600, gt=0, le=86_400)
    """See `flaps`."""
    per_round: int = Field(3, ge=1, le=100)
    """Most repairs in one round: where everything seems broken at once, the cause is likely one."""
    gone_s: float = Field(30, gt=0, le=600)
    """How long a recreation waits for the old object to be gone; the next attempt goes on from there."""

    @model_validator(mode="after")
    def _in_order(self) -> RecoverySettings:
        if self.backoff_max_s < self.window_s:
            raise ValueError("backoff_max_s is below window_s; raise it")
        return self


class AlertSettings(Section):
    """Who is told. Channels that are not set are not used."""

    webhook: Path | None = None
    """File with the address of a webhook that takes JSON."""
    slack: Path | None = None
    """File with the address of a Slack incoming webhook."""
    sns_topic: str | None = Field(None, pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]+$")
    """ARN of an SNS topic; credentials come from the AWS environment or the pod's role."""
    alertmanager: Address | None = None
    """Alertmanager (its API v2)."""
    deadline_s: float = Field(10, gt=0, le=300)
    """Longest time for all channels together; one that is slower counts as failed."""
    repeat_s: float = Field(4 * 3600, gt=0, le=604_800)
    """What goes on is told again after so long."""
    runbook: str = "ops/RUNBOOK.md"
    """Where the runbook can be read; each alert names its section."""
