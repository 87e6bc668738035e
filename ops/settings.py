"""Knobs of everything in `ops` that runs on a cluster: one closed tree, read like a run's (`--config FILE`, `--set`).

No secret is a setting: S3 credentials come from the AWS environment or the pod's role, the database's password from
libpq's password file (PGPASSFILE), keys from files that a Secret is mounted at.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from jobs.costs.settings import CostSettings
from jobs.section import Address, Section
from ops.health.settings import AlertSettings, HealthSettings, RecoverySettings

_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def _no_password(value: str) -> str:
    if _PASSWORD.search(value):
        raise ValueError("must not hold credentials; put the password into the file that PGPASSFILE names")
    return value


DatabaseAddress = Annotated[str, Field(min_length=1), AfterValidator(_no_password)]
"""A database's address, which may name its user."""


class ClusterSettings(Section):
    """Which cluster and namespace."""

    context: str | None = None
    """Context of the kubeconfig; none: the pod's own service account, outside a cluster the current context."""
    namespace: str = Field("haetsal", min_length=1, max_length=63)
    """Namespace whose objects are saved."""
    dashboard: str = "http://{service}.{namespace}.svc:8265"
    """Address of a RayCluster's dashboard, which keeps its job records and Serve configuration."""
    request_timeout_s: float = Field(30, gt=0, le=600)
    """Longest wait for one answer of the API server or of a dashboard."""
    lease_s: float = Field(30, ge=1, le=600)
    """A holder that has not renewed its Lease for this long counts as dead."""


class StoreSettings(Section):
    """Where backups are kept."""

    root: Address = "output/backups"
    """`s3://bucket/prefix`, or a folder."""
    request_timeout_s: float = Field(30, gt=0, le=600)
    """Longest silence of S3 within one request."""
    attempts: int = Field(6, ge=1, le=20)
    """Tries of one S3 request; the client waits between them, longer each time, with jitter."""
    threads: int = Field(8, ge=1, le=64)
    """Requests in flight."""
    reuse_days: float = Field(7, gt=0, le=365)
    """An object stored longer ago than this is stored again instead of being reused, which renews its Object Lock. Keep
    it below the lock's days by as much as the newest backup must stay locked."""


class MlflowSettings(Section):
    """MLflow's database."""

    database: DatabaseAddress | None = None
    """`postgresql://user@host/name` or `sqlite:////path`, without a password; none: there is no database to save."""
    uri: Address | None = None
    """Tracking server, asked for its version only."""


class RunsSettings(Section):
    """What the runs left."""

    root: Address | None = None
    """Storage root of the jobs (`storage.root`), whose artifacts are indexed; none: no index."""
    promotion_log: str = "promotions.jsonl"
    """Path of the promotion log below `root`."""


class KeySettings(Section):
    """Optional protection on the client's side. `python -m ops.backup.sealing FOLDER` makes the three files."""

    encryption: Path | None = None
    """File with the symmetric key; backups are then encrypted before they leave this process."""
    signing: Path | None = None
    """Ed25519 private key (PEM) that signs new backups."""
    verifying: Path | None = None
    """Ed25519 public key (PEM). Where it is set, a backup without its signature is refused."""


class RetentionSettings(Section):
    """Which backups stay. A backup stays if any of the rules keeps it; the newest complete one always does."""

    hourly: int = Field(24, ge=0, le=10_000)
    """Newest backup of each of the last so many hours that have one."""
    daily: int = Field(7, ge=0, le=10_000)
    """The same for days (UTC)."""
    weekly: int = Field(5, ge=0, le=10_000)
    """The same for ISO weeks."""
    grace_days: float = Field(8, gt=0, le=365)
    """Objects that no backup lists are deleted only when older than this. Must exceed `store.reuse_days` by the longest
    backup, so that a running backup never relies on an object that is being deleted."""


class RestoreSettings(Section):
    """How a restore waits."""

    health_timeout_s: float = Field(900, gt=0, le=86_400)
    """Longest wait for restored clusters and services to report that they are up."""


class DrillSettings(Section):
    """Where backups are tried out."""

    namespace: str = Field("haetsal-drill", min_length=1, max_length=63)
    """Namespace that the drill restores into and empties again; it must be there, and be no other's."""
    cleanup_timeout_s: float = Field(300, gt=0, le=86_400)
    """Longest wait until what was restored is deleted again."""


class OpsSettings(Section):
    """The whole tree."""

    cluster: ClusterSettings = ClusterSettings()
    """Kubernetes."""
    store: StoreSettings = StoreSettings()
    """Backups."""
    mlflow: MlflowSettings = MlflowSettings()
    """Tracking."""
    runs: RunsSettings = RunsSettings()
    """Artifacts."""
    cost: CostSettings = CostSettings()
    """Prices and the month's budget."""
    keys: KeySettings = KeySettings()
    """Encryption and signature."""
    retention: RetentionSettings = RetentionSettings()
    """What stays."""
    restore: RestoreSettings = RestoreSettings()
    """Waiting."""
    drill: DrillSettings = DrillSettings()
    """Trying out."""
    health: HealthSettings = HealthSettings()
    """Looking."""
    recovery: RecoverySettings = RecoverySettings()
    """Repairing."""
    alerts: AlertSettings = AlertSettings()
    """Telling."""
