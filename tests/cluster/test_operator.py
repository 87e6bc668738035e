"""What the real operator makes of our RayCluster, RayJob and RayService; nodes and pods are KWOK's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_server import NAMESPACE

from tests.charts.helm import Helm
from tests.cluster.conftest import VALUES
from tests.cluster.kube import Kube, Object, path, phase, stamp
from tests.cluster.release import Release

RUN = "train-20261123-101500-3fa9"
CONFIG = "train: {epochs: 1}\n"


@pytest.fixture(scope="module")
def begun() -> str:
    """When the tests of this file began: others break things on purpose."""
    return stamp()


@pytest.fixture(scope="module")
def run(begun: str, platform: Release, kube: Kube, charts: Helm) -> Iterator[Object]:
    """An elastic run on GPU nodes, as it is when its Ray cluster is up."""
    release = Release(kube, charts, RUN, NAMESPACE)
    values = {"config": CONFIG, "workers": {"training": {"min": 2, "max": 4}}, "images": {"tag": "1.0.0"}}
    release.upgrade(values, chart=charts.charts / "ray-job")
    where = path(NAMESPACE, "rayjobs", selector=f"fieldSelector=metadata.name={RUN}")
    yield kube.wait(where, lambda job: bool((job.get("status") or {}).get("dashboardURL")))
    release.run("uninstall", RUN)
    kube.wait_gone(where)


def pods(kube: Kube, cluster: str, role: str, least: int) -> list[Object]:
    """Pods of a role, as soon as there are so many."""
    where = path(NAMESPACE, "pods", selector=f"labelSelector=ray.io/cluster={cluster},ray.io/node-type={role}")
    kube.wait(where, lambda _: len(kube.items(where)) >= least)
    return kube.items(where)


def ray(pod: Object) -> Object:
    (found,) = (container for container in pod["spec"]["containers"] if container["name"] == "ray")
    return dict(found)


def environment(container: Object) -> dict[str, Object]:
    return {entry["name"]: entry for entry in container["env"]}


def test_pods_of_a_run(run: Object, kube: Kube) -> None:
    cluster = run["status"]["rayClusterName"]
    (head,) = pods(kube, cluster, "head", 1)
    workers = pods(kube, cluster, "worker", 2)
    assert head["spec"]["nodeName"] == "system-1"
    assert {pod["spec"]["nodeName"] for pod in workers} == {"gpu-training-1"}, "selector and taint lead to the pool"

    for worker in workers:
        limits = ray(worker)["resources"]["limits"]
        assert limits == ray(worker)["resources"]["requests"]
        assert (limits["nvidia.com/gpu"], limits["memory"], limits["cpu"]) == ("1", "28Gi", "7")
        tolerated = {entry["key"] for entry in worker["spec"]["tolerations"]}
        assert "gpu-training" in tolerated
        assert worker["spec"]["priorityClassName"] == "haetsal-batch" and worker["spec"]["priority"] == 1000
        assert worker["spec"]["serviceAccountName"] == "train"
        assert "--num-gpus=1" in " ".join(ray(worker)["args"]) and '"training":1' in " ".join(ray(worker)["args"])
        assert worker["metadata"]["labels"]["ray.io/group"] == "training"
        assert not [v for v in worker["spec"]["volumes"] if v["name"].startswith("kube-api-access")], "no token"
    assert "--num-cpus=0" in " ".join(ray(head)["args"])

    secret = kube.ask("GET", path(NAMESPACE, "secrets", cluster))
    assert secret["data"]["auth_token"]
    for pod in (head, *workers):
        found = environment(ray(pod))
        assert found["RAY_AUTH_MODE"]["value"] == "token"
        assert found["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}
        assert found["HAETSAL_ATTEMPT"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['ray.io/cluster']"
        mounted = {mount["name"]: mount["mountPath"] for mount in ray(pod)["volumeMounts"]}
        assert mounted["config"] == "/etc/haetsal"


def test_autoscaler_of_a_run(run: Object, kube: Kube) -> None:
    cluster = run["status"]["rayClusterName"]
    (head,) = pods(kube, cluster, "head", 1)
    (autoscaler,) = (c for c in head["spec"]["containers"] if c["name"] == "autoscaler")
    assert autoscaler["resources"]["limits"] == {"cpu": "500m", "memory": "1Gi"}
    assert environment(ray(head))["RAY_enable_autoscaler_v2"]["value"] == "true"
    group = kube.ask("GET", path(NAMESPACE, "rayclusters", cluster))["spec"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"], group["idleTimeoutSeconds"]) == (2, 4, 1200)
    account = head["spec"]["serviceAccountName"]
    verbs = {("list", "pods"), ("watch", "pods"), ("get", "rayclusters"), ("patch", "rayclusters")}
    for verb, resource in verbs:
        who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
        kind = "rayclusters.ray.io" if resource == "rayclusters" else resource
        assert kube.kubectl("auth", "can-i", verb, kind, who, "-n", NAMESPACE, check=False).stdout.strip() == "yes"


def test_budgets_count_the_pods_that_they_protect(run: Object, kube: Kube) -> None:
    for role, count in (("head", 1), ("worker", 2)):
        where = path(NAMESPACE, "poddisruptionbudgets", selector=f"fieldSelector=metadata.name={RUN}-{role}")
        full = kube.wait(where, lambda it, n=count: (it.get("status") or {}).get("currentHealthy") == n)
        assert (full["status"]["expectedPods"], full["status"]["disruptionsAllowed"]) == (count, 0)
    (head,) = pods(kube, run["status"]["rayClusterName"], "head", 1)
    name = head["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    answer = kube.answer("POST", f"{path(NAMESPACE, 'pods', name)}/eviction", body)
    assert answer.status == 429 and "disruption budget" in answer.message


def test_shared_cluster_and_service(platform: Release, kube: Kube) -> None:
    platform.upgrade(VALUES | {"serving": {"enabled": True}}, "values-kind.yaml")
    where = path(NAMESPACE, "rayclusters", selector="fieldSelector=metadata.name=haetsal")
    shared = kube.wait(where, lambda it: (it.get("status") or {}).get("state") == "ready")
    (head,) = pods(kube, "haetsal", "head", 1)
    assert environment(ray(head))["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "ray-token"
    assert shared["status"]["head"]["serviceName"] == "haetsal-head-svc"
    (serving,) = kube.items(path(NAMESPACE, "rayservices"))
    own = kube.wait(
        path(NAMESPACE, "rayclusters", selector="labelSelector=ray.io/originated-from-cr-name=haetsal-serve"),
        lambda it: (it.get("status") or {}).get("readyWorkerReplicas") == 1,
    )
    (worker,) = pods(kube, own["metadata"]["name"], "worker", 1)
    assert worker["metadata"]["labels"]["haetsal/cluster"] == "haetsal-serve"
    assert ray(worker)["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": 8000, "scheme": "HTTP"}
    assert serving["spec"]["rayClusterDeletionDelaySeconds"] == 120
    platform.upgrade(VALUES, "values-kind.yaml")
    kube.wait_gone(path(NAMESPACE, "rayservices"))


def test_no_warning_is_ours(begun: str, run: Object, platform: Release, kube: Kube) -> None:
    """Volumes and scheduling of the object store are the nodes' affair, which KWOK has no disks for."""
    found = [
        f"{event['involvedObject']['kind']} {event['involvedObject']['name']}: {event['reason']}: {event['message']}"
        for event in kube.items(path(NAMESPACE, "events"))
        if event["type"] == "Warning"
        and (event.get("lastTimestamp") or event.get("eventTime") or "") >= begun
        and not event["involvedObject"]["name"].startswith(("object-store", "data-object"))
        and not event["message"].endswith("already exists")  # the operator's, made and not seen yet by itself
    ]
    assert found == []


def test_operator_says_what_is_wrong(platform: Release, kube: Kube, charts: Helm) -> None:
    """What the schema lets through and the operator refuses ends at once, with the reason."""
    (job,) = (o for o in charts.render("ray-job", {"config": CONFIG, "workers": {"training": {"min": 1, "max": 1}}})
              if o["kind"] == "RayJob")  # fmt: skip
    body = job | {
        "metadata": {"name": "refused"},
        "spec": job["spec"] | {"suspend": True, "shutdownAfterJobFinishes": False},
    }
    body["spec"] = {key: value for key, value in body["spec"].items() if key != "deletionStrategy"}
    kube.ask("POST", path(NAMESPACE, "rayjobs"), body)
    where = path(NAMESPACE, "rayjobs", selector="fieldSelector=metadata.name=refused")
    refused = kube.wait(where, phase("ValidationFailed"))
    assert "shutdownAfterJobFinishes" in refused["status"]["message"]
    kube.ask("DELETE", path(NAMESPACE, "rayjobs", "refused"))
