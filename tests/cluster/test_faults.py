"""Faults made for real to a control plane and its nodes, and what the health checker sees, repairs and leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from api_server import ApiServer
from processes import Process

from ops.backup.catalog import State
from ops.backup.run import Result
from ops.health.finding import Id
from ops.recovery.history import UNFINISHED
from tests.charts.helm import Helm
from tests.cluster import control_plane, kwok
from tests.cluster.dashboard import Dashboard
from tests.cluster.fleet import DOOMED, NAME, SPARE, Fleet, Rounds, set_operator_ready
from tests.cluster.kube import Kube, Object, is_true, path, up
from tests.cluster.release import Release

NAMESPACE = "faults"
DELETED = "deleted; its controller makes another"


@pytest.fixture(scope="module")
def doomed(server: ApiServer) -> Iterator[Process]:
    """The kubelet of the node where the worker begins."""
    if not server.processes:
        pytest.skip("faults are made to the control plane's own processes, and a cluster that is not ours has none")
    with control_plane.doomed_kubelets(server) as process:
        yield process


@pytest.fixture(scope="module")
def fleet(
    doomed: Process, kube: Kube, charts: Helm, platform: Release, s3: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """The cluster, healthy and backed up. The priority class of its pods is the platform's."""
    dashboard = Dashboard()
    with dashboard.serving(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path_factory.mktemp("faults") / "kubeconfig")))
        made = Fleet(kube, charts, NAMESPACE, dashboard, "s3://haetsal/faults")
        assert made.back_up().manifest.state is State.COMPLETED
        yield made
    kube.ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    kwok.remove(kube, *(node["metadata"]["name"] for node in (DOOMED, SPARE)))


@pytest.fixture
def rounds(fleet: Fleet) -> Rounds:
    """A checker that has found everything well."""
    made = Rounds(fleet.checker())
    made.until_healthy()
    made.found.clear()
    return made


def workers() -> str:
    """Path of the cluster's workers."""
    return path(NAMESPACE, "pods", selector=f"labelSelector=ray.io/cluster={NAME},ray.io/node-type=worker")


def new_head(fleet: Fleet, old: Object) -> Object:
    """The head that came after another."""
    where = path(NAMESPACE, "pods", selector=f"labelSelector=ray.io/cluster={NAME},ray.io/node-type=head")
    return fleet.kube.wait(where, lambda pod: pod["metadata"]["uid"] != uid(old) and is_true(pod, "Ready"))


def uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


@contextmanager
def backing_up(fleet: Fleet) -> Iterator[Future[Result]]:
    """A backup that is in its middle for as long as the block runs: it waits for a dashboard's answer."""
    with ThreadPoolExecutor(1) as pool, fleet.dashboard.silent() as asked:
        future = pool.submit(fleet.back_up, cluster__request_timeout_s=120)
        assert asked.wait(60)
        yield future


def test_deleted_head_comes_back_by_itself(fleet: Fleet, rounds: Rounds) -> None:
    old = fleet.head()
    fleet.kube.ask("DELETE", path(NAMESPACE, "pods", old["metadata"]["name"]))
    new_head(fleet, old)
    rounds.until_healthy()
    assert rounds.outcomes == [], "the operator was at it; a repair would have undone its work"


def test_nothing_is_repaired_while_the_operator_is_dead(fleet: Fleet, rounds: Rounds, server: ApiServer) -> None:
    operator, old = server.processes["kuberay-operator"], fleet.head()
    operator.kill()
    assert operator.exit_code is not None
    set_operator_ready(fleet.kube, False)
    fleet.kube.ask("DELETE", path(NAMESPACE, "pods", old["metadata"]["name"]))
    rounds.until_found(Id.OPERATOR_DOWN, Id.HEAD_DOWN)
    assert fleet.pods("head") == [] and rounds.outcomes == []
    operator.start()
    set_operator_ready(fleet.kube, True)
    new_head(fleet, old)
    rounds.until_healthy()
    assert rounds.outcomes == []


def test_head_that_keeps_ending_is_replaced_once(fleet: Fleet, rounds: Rounds) -> None:
    old, audited = fleet.head(), len(fleet.audited())
    fleet.crash(old)
    rounds.until_done(DELETED)
    assert Id.HEAD_DOWN in rounds.found
    new_head(fleet, old)
    rounds.until_healthy()
    assert rounds.outcomes == [DELETED]
    assert len(fleet.audited()) - audited == 3, "decided, ended, healed"


def test_deletion_that_hangs_is_gone_on_with(fleet: Fleet, rounds: Rounds) -> None:
    """A new head does not help, so the cluster is made again; a finalizer of somebody else's keeps the old one."""
    kube, old = fleet.kube, fleet.kube.items(fleet.one)[0]
    where = path(NAMESPACE, "rayclusters", NAME)
    kube.ask("PATCH", where, {"metadata": {"finalizers": ["tests.haetsal/held"]}}, Kube.MERGE)
    first = fleet.head()
    fleet.crash(first)
    rounds.until_done(DELETED)
    fleet.crash(new_head(fleet, first))
    rounds.until_done(UNFINISHED)
    stuck = kube.ask("GET", where)
    assert uid(stuck) == uid(old) and stuck["metadata"]["deletionTimestamp"]
    rounds.until_found(Id.CLUSTER_MISSING)
    kube.ask("PATCH", where, {"metadata": {"finalizers": None}}, Kube.MERGE)
    rounds.until_healthy()
    kube.wait(fleet.one, lambda it: uid(it) != uid(old) and up(it))
    assert fleet.head()["metadata"]["ownerReferences"][0]["uid"] == uid(kube.items(fleet.one)[0])
    assert kube.items(fleet.one)[0]["spec"] == old["spec"]


def test_worker_leaves_a_node_that_is_gone(fleet: Fleet, rounds: Rounds, doomed: Process) -> None:
    """Told to go it would stay, so it is left to whoever knows that the node will not come back."""
    (worker,) = fleet.pods("worker")
    name = DOOMED["metadata"]["name"]
    assert worker["spec"]["nodeName"] == name
    kwok.add(fleet.kube, SPARE)
    rounds.until_healthy()
    doomed.kill()
    rounds.until_found(Id.NODE_NOT_READY, Id.WORKER_DOWN)
    (decision,) = (one for one in rounds.once().decisions if one.finding.id is Id.WORKER_DOWN)
    assert f"node {name} does not report" in decision.reason
    kwok.taint(fleet.kube, name, kwok.OUT_OF_SERVICE)  # as the runbook says
    other = fleet.kube.wait(workers(), lambda pod: uid(pod) != uid(worker) and is_true(pod, "Ready"), timeout_s=120)
    assert other["spec"]["nodeName"] == SPARE["metadata"]["name"]
    kwok.remove(fleet.kube, name)  # as the cloud's controller does in the end
    rounds.until_healthy()
    assert rounds.outcomes == []


def test_api_server_restarts_in_the_middle_of_a_backup(fleet: Fleet, server: ApiServer) -> None:
    """When it is back, nodes may be called silent and pods unready for a while, with nothing wrong."""
    process, head, made = server.processes["kube-apiserver"], fleet.head(), fleet.kube.items(fleet.one)
    rounds = Rounds(fleet.checker(recovery__confirm_s=30))  # as it is by default
    with backing_up(fleet) as running:
        process.kill()
        assert fleet.look().unseen.keys() >= {"pods", "nodes", "RayClusters"}
        assert not running.done()
        process.start()
        server.wait_ready()
    assert running.result().manifest.state is State.COMPLETED
    rounds.until_healthy()
    assert rounds.outcomes == [] and uid(fleet.head()) == uid(head), "what cannot be seen is not repaired"
    assert uid(fleet.kube.items(fleet.one)[0]) == uid(made[0])


def test_etcd_stops_for_a_while(fleet: Fleet, rounds: Rounds, server: ApiServer) -> None:
    """Whoever waits for the API server goes on; a head that broke meanwhile is repaired once."""
    etcd, head = server.processes["etcd"], fleet.head()
    with backing_up(fleet) as running:
        fleet.crash(head)
        etcd.freeze()
        try:
            assert fleet.look().unseen.keys() >= {"pods", "nodes", "RayClusters"}
            assert not running.done()
        finally:
            etcd.thaw()
    assert running.result().manifest.state is State.COMPLETED
    fleet.kube.wait(workers(), lambda pod: is_true(pod, "Ready"))  # its node may have been called silent meanwhile
    rounds.until_done(DELETED)
    new_head(fleet, head)
    rounds.until_healthy()
    assert rounds.outcomes == [DELETED]
