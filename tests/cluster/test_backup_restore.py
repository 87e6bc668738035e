"""Backup, deletion of everything, restore: with the real operator, its finalizers, real Leases and real conflicts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from platform_under_test import Platform
from rayapi import Namespace

from tests.charts.helm import Helm, only
from tests.cluster.dashboard import Dashboard
from tests.cluster.kube import Kube, named, path, phase, up
from tests.cluster.release import Release

HOME, ELSEWHERE = "recovery", "recovery-elsewhere"


@pytest.fixture(scope="module")
def platform_of_runs(
    kube: Kube, platform: Release, charts: Helm, s3: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A shared cluster that is up, a run that goes on, one that has ended, and a ConfigMap, in a namespace.

    The priority class of their pods is the platform's.
    """
    tmp_path = tmp_path_factory.mktemp("recovery")
    for name in (HOME, f"{HOME}-drill", ELSEWHERE):
        Namespace(kube, name)  # type: ignore[arg-type]
    for name in (HOME, ELSEWHERE):
        kube.ask("POST", path(name, "serviceaccounts"), {"metadata": {"name": "train"}})
    values = {"config": "train: {epochs: 1}\n", "workers": {"training": {"min": 1, "max": 1}}}
    job = only(charts.render("ray-job", values, "values-kind.yaml"), "RayJob")
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": job["spec"]["rayClusterSpec"]}
    kube.ask(
        "POST",
        path(HOME, "configmaps"),
        {"metadata": {"name": "gateway"}, "data": {"gateway.yaml": "routes: [챗봇]\n"}},
    )
    kube.ask("POST", path(HOME, "rayclusters"), cluster | {"metadata": {"name": "shared"}})
    for name in ("train-goes-on", "train-ended"):
        kube.ask("POST", path(HOME, "rayjobs"), job | {"metadata": {"name": name, "labels": {"haetsal/run": name}}})
    for name in ("train-goes-on", "train-ended"):
        kube.wait(named(HOME, "rayjobs", name), lambda it: bool((it.get("status") or {}).get("rayClusterName")))
    done = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    kube.ask("PATCH", path(HOME, "rayjobs", "train-ended") + "/status", {"status": done}, Kube.MERGE)
    kube.wait(named(HOME, "rayclusters", "shared"), up)
    dashboard = Dashboard()
    with dashboard.serving(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
        settings: dict[str, Any] = {
            "cluster.namespace": HOME,
            "cluster.lease_s": 2,
            "cluster.dashboard": dashboard.url,
            "drill.namespace": f"{HOME}-drill",
            "store.root": f"s3://haetsal/{tmp_path.name}",
            "restore.health_timeout_s": 60,
        }
        home, scratch = Namespace(kube, HOME), Namespace(kube, f"{HOME}-drill")  # type: ignore[arg-type]
        yield Platform(home, scratch, tmp_path / "none", tuple(settings.items()))
    for name in (HOME, f"{HOME}-drill", ELSEWHERE):
        kube.ask("DELETE", f"/api/v1/namespaces/{name}")


def delete_everything(kube: Kube) -> None:
    """As a person would: the operator lets go of what its finalizers hold, the garbage collector takes the rest."""
    for plural in ("rayjobs", "rayclusters", "configmaps"):
        kube.ask("DELETE", path(HOME, plural))
    for plural in ("rayjobs", "rayclusters", "pods", "services"):
        kube.wait_gone(path(HOME, plural))


def specs(kube: Kube, namespace: str = HOME) -> dict[str, Any]:
    """What people wrote: specs and data of everything that no controller made."""
    found = {}
    for plural in ("rayclusters", "configmaps"):
        for item in kube.items(path(namespace, plural)):
            if not item["metadata"].get("ownerReferences") and item["metadata"]["name"] not in (
                "kube-root-ca.crt", "haetsal-ops-status",
            ):  # fmt: skip
                found[f"{plural}/{item['metadata']['name']}"] = item.get("spec") or item.get("data")
    return found


def test_everything_comes_back_once(platform_of_runs: Platform, kube: Kube) -> None:
    platform, before = platform_of_runs, specs(kube)
    ran = kube.ask("GET", path(HOME, "rayjobs", "train-goes-on"))
    assert ran["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"], "the operator's own"
    backup_id = platform.run("backup").backup_id
    delete_everything(kube)

    done = platform.run("restore")
    assert done.code == 0, done.err
    assert backup_id in done.out and "recovered in" in done.out
    assert specs(kube) == before
    assert up(kube.ask("GET", path(HOME, "rayclusters", "shared")))
    assert kube.ask("GET", path(HOME, "rayjobs", "train-ended")) is None, "it would run again"

    asleep = kube.wait(named(HOME, "rayjobs", "train-goes-on"), phase("Suspended"))
    wanted = ran["spec"] | {"suspend": True, "shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 3600}
    del wanted["deletionStrategy"]
    assert asleep["spec"] == wanted
    owned = path(HOME, "rayclusters", selector="labelSelector=ray.io/originated-from-cr-name=train-goes-on")
    assert kube.items(owned) == []
    again = platform.run("restore", "--conflict", "update")
    assert again.code == 0 and "unchanged" in again.out and " update " not in again.out, again.out

    assert platform.run("restore", "--resume", "train-goes-on").code == 0
    kube.wait(owned, up)
    assert len(kube.items(owned)) == 1, "one cluster of its own, and not the saved one beside it"
    assert not kube.ask("GET", path(HOME, "rayjobs", "train-goes-on"))["spec"]["suspend"]

    elsewhere = platform.with_(cluster__namespace=ELSEWHERE)
    done = elsewhere.run("restore")
    assert done.code == 0, done.err
    assert specs(kube, ELSEWHERE) == before

    drilled = platform.run("drill")
    assert drilled.code == 0, drilled.err
    assert "restored and equal" in drilled.out
    scratch = f"{HOME}-drill"
    assert [kube.items(path(scratch, plural)) for plural in ("rayclusters", "rayjobs")] == [[], []]


def test_real_lease_and_real_conflict(platform_of_runs: Platform, kube: Kube) -> None:
    platform = platform_of_runs
    platform.run("backup")
    lease = path(HOME, "leases", "haetsal-backup")
    held, stop = kube.ask("GET", lease), threading.Event()

    def renew() -> None:
        spec = {"holderIdentity": "another", "leaseDurationSeconds": 2}
        number = 0
        while not stop.wait(0.2):
            number += 1
            body = {"spec": spec | {"renewTime": f"2026-11-23T00:{number // 60:02d}:{number % 60:02d}.000000Z"}}
            kube.ask("PATCH", lease, body, Kube.MERGE)

    assert held
    kube.ask("PATCH", lease, {"spec": {"holderIdentity": "another"}}, Kube.MERGE)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        refused = platform.run("backup")
    finally:
        stop.set()
        thread.join()
    assert refused.code == 3 and "another" in refused.error
    assert platform.run("backup").code == 0, "a holder that says nothing more is dead"

    # Somebody writes the object between our reading and our writing, again and again, until it is ours.
    stop.clear()
    where = path(HOME, "configmaps", "gateway")
    kube.ask("PATCH", where, {"data": {"gateway.yaml": "routes: []\n"}}, Kube.MERGE)

    def scribble() -> None:
        for number in range(3):
            kube.ask("PATCH", where, {"metadata": {"annotations": {"touched": str(number)}}}, Kube.MERGE)

    writer = threading.Thread(target=scribble)
    writer.start()
    done = platform.run("restore", "--conflict", "update")
    writer.join()
    assert done.code == 0, done.err
    assert kube.ask("GET", where)["data"] == {"gateway.yaml": "routes: [챗봇]\n"}
