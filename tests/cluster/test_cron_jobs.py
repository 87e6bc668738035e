"""CronJobs fire on their schedule and do their work, each under its own service account's token."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from api_server import NAMESPACE, ApiServer

from tests.cluster import audit, kwok
from tests.cluster.kube import Kube, Object, path
from tests.cluster.process_node import ProcessNode
from tests.cluster.release import Release
from tests.cluster.rights import TABLE, Right, used

EVERY_MINUTE = {"schedule": "* * * * *"}
VALUES = {"images": {"tag": "1.0.0"}, "operations": {"jobs": {"backup": EVERY_MINUTE}}}


@pytest.fixture(scope="module")
def node(kube: Kube, platform: Release, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessNode]:
    """The only node that takes pods; S3 is behind the object store's name."""
    made = ProcessNode(kube, tmp_path_factory.mktemp("pods"), {"http://object-store:8333": s3})
    shared = path(NAMESPACE, "rayclusters", "haetsal")
    kube.ask("PATCH", shared, {"spec": {"suspend": True}}, Kube.MERGE)  # KWOK's heads have no dashboard to be asked
    kube.wait(path(NAMESPACE, "rayclusters"), lambda it: (it.get("status") or {}).get("state") == "suspended")
    with kwok.closed(kube), made.running():
        yield made
    kube.ask("PATCH", shared, {"spec": {"suspend": False}}, Kube.MERGE)


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


def test_backup_fires_on_its_schedule(kube: Kube, node: ProcessNode, platform: Release) -> None:
    platform.upgrade(VALUES, "values-kind.yaml")
    said = ended(kube, node, "haetsal/operation=backup")
    assert re.match(r"backup-\d{8}", said), said
    platform.upgrade({"images": {"tag": "1.0.0"}}, "values-kind.yaml")
    cron = kube.ask("GET", path(NAMESPACE, "cronjobs", "backup"))
    assert cron["status"]["lastScheduleTime"]
    status = kube.ask("GET", path(NAMESPACE, "configmaps", "haetsal-ops-status"))["data"]
    assert "backup_last_successful_timestamp_seconds" in status["backup-success.prom"]


@pytest.mark.parametrize(
    ("name", "proof"), [("retention", "retention-success.prom"), ("drill", "drill.prom")], ids=["retention", "drill"]
)
def test_operations_do_their_work(kube: Kube, node: ProcessNode, name: str, proof: str) -> None:
    job = start(kube, name)
    ended(kube, node, f"job-name={job}")
    status = kube.ask("GET", path(NAMESPACE, "configmaps", "haetsal-ops-status"))["data"]
    assert any(f"{name}_last_success" in text or f"{name}_" in text for text in status.values()), status


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
        idle = {right for right in granted if right not in done}
        assert idle == set(), f"{account} never needed {idle}"
