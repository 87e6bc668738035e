"""What is saved, and how each part is read. Every function turns one source into items of the backup."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from jobs import manifest
from jobs.errors import HaetsalError, RemoteError
from jobs.storage import NotFound, Storage
from ops.backup.catalog import Item
from ops.backup.chunks import pieces
from ops.backup.database import Database, Snapshot
from ops.backup.upload import Upload
from ops.kinds import KINDS, RAY, is_saved, secret_names
from ops.kube import Cluster, Object
from ops.settings import ClusterSettings, RunsSettings

_RETRIES = urllib3.Retry(total=4, backoff_factor=0.3, backoff_jitter=0.3, status_forcelist=(429, 500, 502, 503, 504))
_FLEETING = ("managedFields", "resourceVersion", "selfLink")
"""Metadata that changes without the object changing; left out, an unchanged object is stored once."""


def canonical(value: Any) -> bytes:
    """JSON with one spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def kubernetes(cluster: Cluster, namespace: str, upload: Upload) -> Iterator[Item]:
    """All objects of `KINDS` with their status, one blob each, and the names of the Secrets that they use.

    Raises Missing where the namespace or a kind is not there.
    """
    cluster.get("", "Namespace", namespace)
    secrets: dict[str, list[str]] = {}
    for kind in KINDS:
        if kind.optional and cluster.served(kind.group, kind.name) is None:
            continue
        for item in cluster.find_all(kind.group, kind.name, namespace):
            if not is_saved(kind, item):
                continue
            for key in _FLEETING:
                item["metadata"].pop(key, None)
            name = item["metadata"]["name"]
            for secret in secret_names(item.get("spec")):
                secrets.setdefault(secret, []).append(f"{kind.name}/{name}")
            yield Item(kind=kind.name, name=name, blobs=(upload.add(canonical(item)),))
    yield _item("SecretNames", namespace, upload, {name: sorted(users) for name, users in sorted(secrets.items())})


class Dashboards:
    """The Ray dashboards of a namespace. A token in RAY_AUTH_TOKEN is sent, which Ray's token mode demands."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        token = os.environ.get("RAY_AUTH_TOKEN")
        self._http = urllib3.PoolManager(
            timeout=settings.request_timeout_s,
            retries=_RETRIES,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def items(self, item: Object, upload: Upload) -> Iterator[Item]:
        """Job records and Serve configuration of one RayCluster; none if it has no head. Raises RemoteError."""
        status = item.get("status") or {}
        service = (status.get("head") or {}).get("serviceName")
        if not service or status.get("state") != "ready":
            return
        name = item["metadata"]["name"]
        root = self._settings.dashboard.format(service=service, namespace=item["metadata"]["namespace"])
        jobs = [_without_values(job) for job in self._ask(f"{root}/api/jobs/")]
        yield _item("RayJobRecords", name, upload, jobs)
        applications = self._ask(f"{root}/api/serve/applications/").get("applications", {})
        configs = {key: application.get("deployed_app_config") for key, application in applications.items()}
        yield _item("ServeApplications", name, upload, configs)

    def _ask(self, url: str) -> Any:
        try:
            answer = self._http.request("GET", url)
            if answer.status != 200:
                raise RemoteError(f"{url}: Ray's dashboard answered {answer.status}")
            return answer.json()
        except urllib3.exceptions.HTTPError as error:
            raise RemoteError(f"{url}: Ray's dashboard does not answer ({error})") from None
        except ValueError:
            raise RemoteError(f"{url}: is not Ray's dashboard; see cluster.dashboard") from None


def ray_clusters(cluster: Cluster, namespace: str) -> Iterator[Object]:
    """Every RayCluster, those that a RayJob or RayService owns too: their dashboards hold the records."""
    return cluster.find_all(RAY, "RayCluster", namespace)


def database(snapshot: Snapshot, source: Database, version: str | None, upload: Upload) -> Iterator[Item]:
    """MLflow's database in pieces, and its registry in the clear."""
    detail = {"dialect": source.dialect, "revision": snapshot.revision, "rows": json.dumps(snapshot.rows)}
    if version:
        detail["mlflow_version"] = version
    yield Item(kind="Database", name="mlflow", blobs=upload.add_all(pieces(snapshot.stream)), detail=detail)
    yield _item("Registry", "mlflow", upload, snapshot.registry)


def mlflow_version(uri: str | None, timeout_s: float) -> str | None:
    """Version of the tracking server, which decides where its database may be restored; none without an address."""
    if uri is None:
        return None
    try:
        answer = urllib3.request("GET", f"{uri.rstrip('/')}/version", timeout=timeout_s, retries=_RETRIES)
    except urllib3.exceptions.HTTPError as error:
        raise RemoteError(f"{uri}: MLflow does not answer ({error})") from None
    if answer.status != 200:
        raise RemoteError(f"{uri}/version: MLflow answered {answer.status}")
    return answer.data.decode().strip()


def runs(settings: RunsSettings, upload: Upload) -> Iterator[Item]:
    """Checksums of every run's model, which its manifest has already, and the promotion log."""
    if settings.root is None:
        return
    storage = Storage(settings.root)
    index: dict[str, Any] = {}
    for run in storage.list("runs"):
        if run.startswith("latest"):  # `latest` and `latest-<job>` are files, not runs
            continue
        rel = f"runs/{run}/model"
        try:
            entries = manifest.parse(storage.read(f"{rel}/{manifest.MANIFEST}"), storage.address(rel))
        except NotFound:
            continue
        index[rel] = {name: vars(entry) for name, entry in entries.items()}
    yield _item("ArtifactIndex", "runs", upload, index)
    try:
        log = storage.read(settings.promotion_log)
    except NotFound:
        return
    yield Item(kind="PromotionLog", name=settings.promotion_log, blobs=(upload.add(log),))


@contextmanager
def problem(what: str, problems: list[str]) -> Iterator[None]:
    """A source whose loss does not spoil the rest: its error becomes a problem on record."""
    try:
        yield
    except HaetsalError as error:
        problems.append(f"{what}: {error}")


def _item(kind: str, name: str, upload: Upload, value: Any) -> Item:
    return Item(kind=kind, name=name, blobs=(upload.add(canonical(value)),))


def _without_values(job: dict[str, Any]) -> dict[str, Any]:
    """A job record without the values of its environment variables, which may be secrets."""
    runtime = dict(job.get("runtime_env") or {})
    if "env_vars" in runtime:
        runtime["env_vars"] = sorted(runtime["env_vars"])
    return {**job, "runtime_env": runtime}
