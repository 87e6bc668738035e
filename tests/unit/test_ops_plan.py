"""The pure parts of restore: what is stripped, compared, put to sleep and refused."""

from __future__ import annotations

import io
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.errors import EnvironmentNotReady, UsageError
from ops.backup.catalog import Item, new_id
from ops.backup.chunks import LARGEST_BYTES, SMALLEST_BYTES, pieces
from ops.backup.database import Found
from ops.kinds import KINDS, is_owned, is_saved, secret_names
from ops.restore.desired import Target, desired
from ops.restore.fields import differences, prune
from ops.restore.health import is_up
from ops.restore.plan import Action, Policy, plan_database, plan_object

BY_NAME = {kind.name: kind for kind in KINDS}
TARGET = Target("target", "backup-1", dict.fromkeys(BY_NAME, "ray.io/v1") | {"ConfigMap": "v1"}, {})


def saved(kind: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    more = {"status": metadata.pop("status")} if "status" in metadata else {}
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": "x"} | metadata, "spec": spec or {}} | more


def test_nothing_of_the_old_cluster_stays() -> None:
    old = dict.fromkeys(
        ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "selfLink", "generateName"),
        "x",
    )
    lists: dict[str, Any] = {
        "finalizers": ["ray.io/rayservice-finalizer"],
        "managedFields": [{}],
        "ownerReferences": [{}],
    }
    annotations = {
        "mine": "stays",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "ray.io/kuberay-version": "1.6.0",
        "ray.io/hash-without-replicas-and-workers-to-delete": "x",
    }
    item = saved("RayService", status={"a": 1}, labels={"l": "stays"}, annotations=annotations, **old, **lists)
    found = desired(BY_NAME["RayService"], item, TARGET)
    assert found.body == {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": "x",
            "namespace": "target",
            "labels": {"l": "stays"},
            "annotations": {"mine": "stays", "haetsal.io/restored-from": "backup-1"},
        },
        "spec": {},
    }


@pytest.mark.parametrize("state", ["Complete", "Failed", "ValidationFailed"])
def test_ended_jobs_are_left_out(state: str) -> None:
    found = desired(BY_NAME["RayJob"], saved("RayJob", status={"jobDeploymentStatus": state}), TARGET)
    assert found.body is None
    assert state in found.reason


@pytest.mark.parametrize("state", ["", "Initializing", "Running", "Suspended", "Retrying", "Waiting"])
def test_all_other_jobs_sleep(state: str) -> None:
    found = desired(BY_NAME["RayJob"], saved("RayJob", status={"jobDeploymentStatus": state}), TARGET)
    assert found.body and found.body["spec"] == {"suspend": True, "shutdownAfterJobFinishes": True}


def test_rules_of_deletion_give_way_to_sleep() -> None:
    """KubeRay refuses deletionRules and shutdownAfterJobFinishes together, and lets no job sleep without the latter."""
    rules = [
        {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED", "ttlSeconds": 0}},
        {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 3600}},
        {"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "ttlSeconds": 604800}},
    ]
    found = desired(BY_NAME["RayJob"], saved("RayJob", {"deletionStrategy": {"deletionRules": rules}}), TARGET)
    assert found.body
    assert found.body["spec"] == {"suspend": True, "shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 3600}


@pytest.mark.parametrize(
    "spec",
    [{"clusterSelector": {"ray.io/cluster": "a"}}, {"deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}}}],
)
def test_jobs_that_kuberay_lets_not_sleep_are_left_out(spec: dict[str, Any]) -> None:
    found = desired(BY_NAME["RayJob"], saved("RayJob", spec), TARGET)
    assert found.body is None
    assert "submit it again" in found.reason


def test_a_drill_puts_everything_to_sleep_or_leaves_it_out() -> None:
    asleep = Target("t", "b", TARGET.api_versions, {}, asleep=True)
    for kind in ("RayCluster", "RayService"):
        found = desired(BY_NAME[kind], saved(kind), asleep)
        assert found.body and found.body["spec"]["suspend"] is True
    older = {"RayService": {"properties": {"spec": {"type": "object", "properties": {"serveConfigV2": {}}}}}}
    found = desired(
        BY_NAME["RayService"], saved("RayService"), Target("t", "b", TARGET.api_versions, older, asleep=True)
    )
    assert found.body is None
    assert "cannot suspend" in found.reason


def test_an_older_kuberay() -> None:
    versions = TARGET.api_versions | {"RayCluster": "ray.io/v1alpha1"}
    schema = {
        "RayCluster": {"properties": {"spec": {"type": "object", "properties": {"rayVersion": {"type": "string"}}}}}
    }
    item = saved("RayCluster", {"rayVersion": "2.60.0", "networkPolicy": {"mode": "DenyAll"}})
    found = desired(BY_NAME["RayCluster"], item, Target("t", "b", versions, schema))
    assert found.body and found.body["apiVersion"] == "ray.io/v1alpha1"
    assert found.body["spec"] == {"rayVersion": "2.60.0"}
    assert found.notes == ("spec.networkPolicy is unknown to this cluster and is left out",)
    without = {kind: version for kind, version in TARGET.api_versions.items() if kind != "RayCronJob"}
    assert desired(BY_NAME["RayCronJob"], saved("RayCronJob"), Target("t", "b", without, {})).body is None


def test_a_newer_kuberay_s_defaults_are_no_difference() -> None:
    item = saved("RayCluster", {"rayVersion": "2.60.0"})
    live = saved("RayCluster", {"rayVersion": "2.60.0", "invented": {"by": "default"}}, uid="1", resourceVersion="7")
    step = plan_object(BY_NAME["RayCluster"], "x", json.dumps(item).encode(), live, TARGET, Policy.UPDATE)
    assert step.action is Action.UNCHANGED


@pytest.mark.parametrize(
    ("policy", "action"), [(Policy.SKIP, Action.SKIP), (Policy.UPDATE, Action.UPDATE), (Policy.FAIL, Action.CONFLICT)]
)
def test_policies(policy: Policy, action: Action) -> None:
    live = saved("RayCluster", {"rayVersion": "2.9.0"}, resourceVersion="7")
    step = plan_object(
        BY_NAME["RayCluster"],
        "x",
        json.dumps(saved("RayCluster", {"rayVersion": "2.60.0"})).encode(),
        live,
        TARGET,
        policy,
    )
    assert step.action is action
    assert step.details == ("spec.rayVersion: '2.9.0' -> '2.60.0'",)
    if action is Action.UPDATE:
        assert json.loads(step.body)["metadata"]["resourceVersion"] == "7"


def test_a_running_job_is_never_updated() -> None:
    live = saved("RayJob", {"entrypoint": "other"}, resourceVersion="7")
    item = saved("RayJob", {"entrypoint": "mine"})
    step = plan_object(BY_NAME["RayJob"], "x", json.dumps(item).encode(), live, TARGET, Policy.UPDATE)
    assert step.action is Action.SKIP


@pytest.mark.parametrize(
    ("wanted", "live", "count"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, 0),
        ({"a": 1}, {"a": 2}, 1),
        ({"a": 1}, {}, 1),
        ({"a": []}, {}, 0),
        ({"a": [{"n": 1}]}, {"a": [{"n": 1, "default": 0}]}, 0),
        ({"a": [1, 2]}, {"a": [1]}, 1),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, 1),
    ],
)
def test_differences(wanted: Any, live: Any, count: int) -> None:
    assert len(differences(wanted, live)) == count


def test_prune_as_an_api_server_does() -> None:
    schema = {
        "type": "object",
        "properties": {
            "known": {"type": "object", "properties": {"a": {"type": "string"}}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "many": {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
        },
    }
    value = {"known": {"a": "1", "b": 2}, "open": {"x": 1}, "labels": {"k": "v"}, "many": [{"a": 1}, {"z": 1}], "no": 1}
    assert prune(value, schema, "spec") == ["spec.known.b", "spec.many[1].z", "spec.no"]
    assert value == {"known": {"a": "1"}, "open": {"x": 1}, "labels": {"k": "v"}, "many": [{"a": 1}, {}]}


def test_names_of_secrets() -> None:
    pod = {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [
            {
                "env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
                "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "no"}}],
            }
        ],
        "volumes": [{"secret": {"secretName": "mounted"}}, {"projected": {"sources": [{"secret": {"name": "n"}}]}}],
    }
    assert secret_names({"headGroupSpec": {"template": {"spec": pod}}}) == {"pull", "key", "all", "mounted", "n"}


def test_what_is_saved() -> None:
    owner = {"ownerReferences": [{"controller": True}]}
    assert not is_saved(BY_NAME["ConfigMap"], saved("ConfigMap", **owner))
    assert is_saved(BY_NAME["RayCluster"], saved("RayCluster", **owner)), "as a record; the plan leaves it out"
    assert is_owned(saved("RayCluster", labels={"ray.io/originated-from-crd": "RayJob"}))


@pytest.mark.parametrize(
    ("saved_version", "found", "server", "expected"),
    [
        ("3.17.2", Found(), "3.17.2", Action.CREATE),
        ("3.17.2", Found(), "3.18.0", Action.CREATE),
        ("3.18.0", Found(), "3.17.2", EnvironmentNotReady),
        ("3.17.2", Found("rev"), None, Action.UPDATE),
        ("3.17.2", Found("other"), None, EnvironmentNotReady),
        ("3.17.2", Found("other"), "3.18.0rc1", Action.UPDATE),
        ("3.18.0", Found("other"), "3.17.2", EnvironmentNotReady),
        ("3.17.2", Found("rev", "backup-1"), "3.17.2", Action.UNCHANGED),
    ],
)
def test_schema_of_the_database(saved_version: str, found: Found, server: str | None, expected: Any) -> None:
    detail = {"dialect": "postgresql", "revision": "rev", "rows": "{}", "mlflow_version": saved_version}
    item = Item(kind="Database", name="mlflow", blobs=(), detail=detail)
    arguments = (item, found, server, Policy.UPDATE, "backup-1", "postgresql")
    if isinstance(expected, Action):
        assert plan_database(*arguments)[0] is expected
    else:
        with pytest.raises(expected, match="MLflow"):
            plan_database(*arguments)
    with pytest.raises(UsageError, match="holds a postgresql database"):
        plan_database(item, found, server, Policy.SKIP, "b", "sqlite")


@pytest.mark.parametrize(
    ("kind", "status", "up"),
    [
        ("RayCluster", {}, False),
        ("RayCluster", {"state": "ready"}, True),
        ("RayCluster", {"conditions": [{"type": "RayClusterProvisioned", "status": "True"}]}, True),
        ("RayCluster", {"conditions": [{"type": "RayClusterProvisioned", "status": "False"}]}, False),
        ("RayService", {"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ("RayService", {"serviceStatus": "Running"}, True),
        ("RayService", {"conditions": [{"type": "UpgradeInProgress", "status": "True"}]}, False),
    ],
)
def test_is_up(kind: str, status: dict[str, Any], up: bool) -> None:
    assert is_up(kind, {"status": status}) is up


def test_pieces_are_the_stream_and_a_change_moves_few_of_them() -> None:
    rng = random.Random(1)
    rows = [f"{number}\t{rng.random()}\t{rng.getrandbits(128):032x}\n".encode() for number in range(200_000)]
    data = b"".join(rows)
    before = list(pieces(io.BytesIO(data)))
    assert b"".join(before) == data
    assert all(SMALLEST_BYTES <= len(piece) <= LARGEST_BYTES for piece in before[:-1])
    for place in (0, 77_777, len(rows)):
        after = list(pieces(io.BytesIO(b"".join([*rows[:place], b"a new row\n", *rows[place:]]))))
        assert len(set(after) - set(before)) <= 2
    assert list(pieces(io.BytesIO(b""))) == []
    assert list(pieces(io.BytesIO(b"x" * (LARGEST_BYTES + 1)))) == [b"x" * LARGEST_BYTES, b"x"]


def test_ids_grow_under_any_clock() -> None:

    now = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
    first = new_id(now, None)
    second = new_id(now - timedelta(hours=1), first)
    assert first < second < new_id(now + timedelta(hours=1), second)
