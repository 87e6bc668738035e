"""CronJobs fire on their schedule and do their work, each under its own service account's token."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from api_server import NAMESPACE, ApiServer
from rayapi import plural

from tests.charts.helm import Helm, only
from tests.cluster import audit, kwok
from tests.cluster.conftest import VALUES
from tests.cluster.kube import Kube, Object, named, path
from tests.cluster.process_node import ProcessNode
from tests.cluster.release import Release
from tests.cluster.rights import TABLE, Right, used

ONE_LOOK = {"arguments": ["--repair", "--watch", "1"]}
"""Of the health check, which else looks until its successor starts."""


def values(**backup: str) -> Object:
    """The chart's values with another schedule of the backup."""
    jobs = VALUES["operations"]["jobs"]
    changed = {"backup": jobs["backup"] | backup, "health": jobs["health"] | ONE_LOOK}
    return VALUES | {"operations": {"jobs": jobs | changed}}


@pytest.fixture(scope="module")
def one_of_each(kube: Kube, platform: Release, charts: Helm) -> Iterator[None]:
    """An object of every kind that is saved, beside the shared cluster. All are asleep, that one too: KWOK's heads have
    no dashboards to be asked."""
    run = {"config": "train: {epochs: 1}\n", "workers": {"training": {"min": 1, "max": 1}}}
    job = only(charts.render("ray-job", run, "values-kind.yaml"), "RayJob")["spec"]
    job = {key: value for key, value in job.items() if key != "deletionStrategy"}
    job |= {"suspend": True, "shutdownAfterJobFinishes": True}
    service = {"serveConfigV2": "applications: []\n", "rayClusterConfig": job["rayClusterSpec"], "suspend": True}
    cron = {"schedule": "0 0 29 2 *", "suspend": True, "jobTemplate": job}
    made = {"RayJob": job, "RayService": service, "RayCronJob": cron}
    shared = path(NAMESPACE, "rayclusters", "haetsal")
    kube.ask("PATCH", shared, {"spec": {"suspend": True}}, Kube.MERGE)
    for kind, spec in made.items():
        body = {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": "asleep"}, "spec": spec}
        kube.ask("POST", path(NAMESPACE, plural(kind)), body)
    kube.wait(
        named(NAMESPACE, "rayclusters", "haetsal"), lambda it: (it.get("status") or {}).get("state") == "suspended"
    )
    yield
    for kind in made:
        kube.ask("DELETE", path(NAMESPACE, plural(kind), "asleep"))
    kube.ask("PATCH", shared, {"spec": {"suspend": False}}, Kube.MERGE)


@pytest.fixture(scope="module")
def node(kube: Kube, one_of_each: None, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessNode]:
    """The only node that takes pods; S3 is behind the object store's name."""
    made = ProcessNode(kube, tmp_path_factory.mktemp("pods"), {"http://object-store:8333": s3})
    with kwok.closed(kube), made.running():
        yield made


def start(kube: Kube, name: str) -> str:
    """A Job of the CronJob now, as `kubectl create job --from` makes it."""
    kube.kubectl("create", "job", f"{name}-now", f"--from=cronjob/{name}", "-n", NAMESPACE)
    return f"{name}-now"


def ended(kube: Kube, node: ProcessNode, selector: str) -> str:
    """What the pod of a Job wrote; fails if it did not succeed."""
    where = path(NAMESPACE, "pods", selector=f"labelSelector={selector}")
    over: Object = kube.wait(where, lambda pod: (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"), 90)
    said = node.log(over["metadata"]["name"])
    assert over["status"]["phase"] == "Succeeded", said
    return said


def forget_leases(kube: Kube) -> None:
    """The next operation begins its Lease, and does not go on with another's."""
    for name in ("haetsal-backup", "haetsal-health"):
        kube.ask("DELETE", path(NAMESPACE, "leases", name))


def status(kube: Kube) -> dict[str, str]:
    """What the operations published."""
    return dict(kube.ask("GET", path(NAMESPACE, "configmaps", "haetsal-ops-status"))["data"])


def test_backup_fires_on_its_schedule(kube: Kube, node: ProcessNode, platform: Release) -> None:
    forget_leases(kube)
    platform.upgrade(values(schedule="* * * * *"), "values-kind.yaml")
    said = ended(kube, node, "haetsal/operation=backup")
    assert re.match(r"backup-\d{8}\S+ Completed", said), said
    platform.upgrade(values(), "values-kind.yaml")
    cron = kube.wait(
        named(NAMESPACE, "cronjobs", "backup"), lambda it: not (it.get("status") or {}).get("active"), timeout_s=90
    )
    assert cron["status"]["lastSuccessfulTime"] >= cron["status"]["lastScheduleTime"]
    assert "backup_last_successful_timestamp_seconds" in status(kube)["backup-success.prom"]


@pytest.mark.parametrize("name", ["retention", "drill", "health"])
def test_operations_do_their_work(kube: Kube, node: ProcessNode, name: str) -> None:
    forget_leases(kube)
    key = f"{name}.prom"
    assert key not in status(kube), "nothing of an earlier one"
    job = start(kube, name)
    ended(kube, node, f"job-name={job}")
    assert f"{name}_" in status(kube)[key]


def test_every_call_is_in_the_table_and_every_right_is_used(server: ApiServer, node: ProcessNode) -> None:
    """The API server's own record of what the accounts asked for, against charts/haetsal/rbac.yaml."""
    if "kube-apiserver" not in server.processes:
        pytest.skip("a cluster that is not ours keeps its audit log to itself")
    calls = audit.read(server.folder, NAMESPACE)
    refused = [call for call in calls if call.refused]
    assert refused == []
    done: set[Right] = {right for call in calls if (right := used(call, TABLE))}
    for account in ("backup-writer", "retention-deleter", "restore-reader"):
        granted = {right for right in TABLE if right.account == account}
        idle = {right for right in granted - done if right.verb != "watch"}  # begun only where waiting is needed
        assert idle == set(), f"{account} never needed {idle}"
