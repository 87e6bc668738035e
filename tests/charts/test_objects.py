"""What the charts make is what Kubernetes, KubeRay, Kueue and the Prometheus operator know, to the last field."""

import copy
from functools import cache

import kubernetes_validate
import pytest

from tests.charts import crds, pod_security
from tests.charts.helm import pods, ray_clusters

CUSTOM = tuple(crds.MODULES)


def group(entry: dict) -> str:
    return entry["apiVersion"].rpartition("/")[0]


def test_kubernetes_knows_every_field(everything, versions, monkeypatch):
    # The package reads a megabyte of schemas anew for each object.
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
    core = [entry for entry in everything if group(entry) not in CUSTOM]
    assert {"NetworkPolicy", "CronJob", "Deployment", "StatefulSet", "PriorityClass"} <= {e["kind"] for e in core}
    for entry in core:
        kubernetes_validate.validate(entry, versions.kubernetes, strict=True)


def test_an_unknown_field_of_kubernetes_is_found(everything, versions):
    broken = copy.deepcopy(next(entry for entry in everything if entry["kind"] == "CronJob"))
    broken["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(broken, versions.kubernetes, strict=True)


@pytest.mark.parametrize("name", CUSTOM)
def test_its_crd_knows_every_field(name, everything, versions):
    validators = crds.validators(name, versions.charts["kuberay-operator"].version)
    ours = [entry for entry in everything if group(entry) == name]
    assert ours
    for entry in ours:
        errors = validators[entry["apiVersion"], entry["kind"]].iter_errors(entry)
        assert not [f"{'.'.join(map(str, error.path))}: {error.message[:300]}" for error in errors], entry["metadata"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "shutdownAfterFinish"), True),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "nodeSelectors"), {}),
        (("spec", "backoffLimit"), "two"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), "1"),
    ],
)
def test_a_broken_rayjob_is_found(path, value, everything, versions):
    validators = crds.validators("ray.io", versions.charts["kuberay-operator"].version)
    broken = copy.deepcopy(next(e for e in everything if e["kind"] == "RayJob" and "rayClusterSpec" in e["spec"]))
    node = broken
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert list(validators["ray.io/v1", "RayJob"].iter_errors(broken))


def test_every_pod_is_restricted(everything):
    found = dict(pods(everything))
    assert len(found) > 10
    assert not {
        where: list(pod_security.violations(pod)) for where, pod in found.items() if any(pod_security.violations(pod))
    }


def test_ray_containers_that_the_operator_adds_are_restricted(everything):
    """KubeRay copies the workers' context to its init container, and takes the autoscaler's from the spec."""
    for _, cluster in ray_clusters(everything):
        if cluster["enableInTreeAutoscaling"]:
            ray = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
            assert cluster["autoscalerOptions"]["securityContext"] == ray["securityContext"]
            mounts = {mount["name"] for mount in cluster["autoscalerOptions"]["volumeMounts"]}
            assert mounts <= {volume["name"] for volume in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pod: pod["spec"].update(hostNetwork=True), "hostNetwork"),
        (lambda pod: pod["spec"]["containers"][0].pop("securityContext"), "capabilities are not dropped"),
        (lambda pod: pod["spec"]["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "hostPath"),
        (lambda pod: pod["spec"]["containers"][0]["securityContext"].update(runAsUser=0), "user 0"),
    ],
)
def test_the_checker_finds_what_is_not_restricted(change, words, everything):
    _, pod = next(pods(everything))
    pod = copy.deepcopy(pod)
    change(pod)
    assert any(words in text for text in pod_security.violations(pod))


def test_every_pod_has_limits_an_account_and_no_token_it_does_not_need(everything):
    for where, pod in pods(everything):
        for container in pod["spec"]["containers"]:
            assert container["resources"]["limits"]["memory"], where
            assert ":latest" not in container["image"] and ":" in container["image"], where
        talks = "CronJob" in where or "headGroupSpec" in where  # to the cluster's API: operations, Ray's autoscaler
        assert pod["spec"]["automountServiceAccountToken"] is False or talks, where


def test_every_service_account_exists(everything):
    made = {entry["metadata"]["name"] for entry in everything if entry["kind"] == "ServiceAccount"}
    used = {pod["spec"].get("serviceAccountName") for _, pod in pods(everything)} - {None}
    assert used <= made
