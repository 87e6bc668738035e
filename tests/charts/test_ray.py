"""Ray's clusters: one head template, one worker template, and what their fields must be for Ray and KubeRay to work."""

import base64
import importlib
import re

import pytest
import yaml

from tests.charts.cases import AWS, ELASTIC, FIXED, QUEUED, SHARED
from tests.charts.helm import CHARTS, RUN, names, only, ray_clusters
from tests.charts.pod_security import violations


def group(cluster: dict, name: str) -> dict:
    (found,) = (g for g in cluster["workerGroupSpecs"] if g["groupName"] == name)
    return found


def ray(template: dict) -> dict:
    return template["template"]["spec"]["containers"][0]


def test_head_and_worker_templates_exist_once():
    templates = [p.read_text(encoding="utf-8") for p in CHARTS.glob("*/templates/*")]
    for field, once in (("rayStartParams:", 2), ("groupName:", 1), ("startupProbe:\n        httpGet: {path: /api", 1)):
        assert sum(text.count(field) for text in templates) == once
    for chart in ("haetsal", "ray-job"):
        assert not any("containerPort: 6379" in p.read_text() for p in (CHARTS / chart / "templates").glob("*"))


def test_ray_is_the_release_of_versions_yaml(everything, versions):
    clusters = dict(ray_clusters(everything))
    assert {cluster["rayVersion"] for cluster in clusters.values()} == {versions.ray}
    for lock in ("local", "gpu"):  # what the images job-cpu and job-gpu install
        text = (CHARTS.parent / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
        assert re.findall(r"^ray==(\S+)", text, re.M) == [versions.ray]


def test_charts_are_the_projects_release():
    text = (CHARTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = re.search(r'^version = "(.+)"$', text, re.M)[1]
    for chart in ("haetsal", "ray-job"):
        metadata = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
        assert metadata["appVersion"] == metadata["version"] == project


def test_what_every_cluster_must_have(everything):
    for where, cluster in ray_clusters(everything):
        assert cluster["authOptions"]["mode"] == "token", where
        head = cluster["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0", where
        for template in (head, *cluster["workerGroupSpecs"]):
            spec = template["template"]["spec"]
            # Autoscaler v2 demands Never or nothing.
            assert "restartPolicy" not in spec, where
            assert template["template"]["metadata"]["annotations"] == {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"
            }
            assert {"startupProbe", "livenessProbe", "readinessProbe", "lifecycle"} <= set(spec["containers"][0]), where
            assert not list(violations(template["template"])), where
        for worker in cluster["workerGroupSpecs"]:
            # KubeRay refuses resources in both places.
            assert not (worker.get("resources") and worker["rayStartParams"]), where
            assert worker["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_head_is_on_the_system_pool_and_stays(helm):
    objects = helm.render("haetsal", AWS)
    spec = only(objects, "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"node-type": "system"} and "tolerations" not in spec
    budget = only(objects, "PodDisruptionBudget", "haetsal-head")["spec"]
    # Pods whose owner has no scale subresource are only protected by minAvailable.
    assert budget["minAvailable"] == 1 and "maxUnavailable" not in budget


def test_the_three_worker_groups(helm):
    cluster = only(helm.render("haetsal", AWS), "RayCluster")["spec"]
    assert [g["groupName"] for g in cluster["workerGroupSpecs"]] == ["inference", "preprocessing", "training"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["autoscalerOptions"]["upscalingMode"] == "Default"
    training = group(cluster, "training")
    assert (training["minReplicas"], training["maxReplicas"], training["idleTimeoutSeconds"]) == (0, 4, 1200)
    assert training["resources"] == {"training": "1"}
    assert ray(training)["resources"]["limits"] == {"cpu": "7", "memory": "28Gi", "nvidia.com/gpu": 1}
    spec = training["template"]["spec"]
    assert spec["nodeSelector"] == {"node-type": "gpu-training"}
    assert spec["tolerations"] == [
        {"key": "gpu-training", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ]
    assert "podAffinity" in spec["affinity"] and "topologySpreadConstraints" not in spec
    preprocessing = group(cluster, "preprocessing")
    assert "nvidia.com/gpu" not in ray(preprocessing)["resources"]["limits"]
    assert "tolerations" not in preprocessing["template"]["spec"]
    assert len(preprocessing["template"]["spec"]["topologySpreadConstraints"]) == 2
    assert ray(preprocessing)["image"].endswith("haetsal-dev/job-cpu:0.1.0")
    assert ray(training)["image"].endswith("haetsal-dev/job-gpu:0.1.0")


def test_a_worker_outlives_its_checkpoint(helm):
    cluster = only(helm.render("ray-job", FIXED | {"ray": {"checkpointSeconds": 600}}), "RayJob")["spec"][
        "rayClusterSpec"
    ]
    worker = group(cluster, "training")
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > 600
    hook = ray(worker)["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert "ray drain-node" in hook and "--deadline-remaining-seconds 600" in hook


def test_nothing_needs_a_gpu_or_a_pool_on_kind(helm):
    for chart, values in (
        ("haetsal", {"serving": {"enabled": True}, "gateway": {"enabled": True}}),
        ("ray-job", ELASTIC),
    ):
        text = helm.text(chart, values, "values-kind.yaml")
        assert "nvidia.com/gpu" not in text.replace("coveredResources", "")
        assert "nodeSelector" not in text and "job-gpu" not in text


def test_serving_workers_are_ready_when_their_proxy_is(helm):
    service = only(helm.render("haetsal", AWS | {"serving": {"enabled": True}}), "RayService")["spec"]
    assert service["upgradeStrategy"] == {"type": "NewCluster"}
    assert service["rayClusterDeletionDelaySeconds"] > 0
    probe = ray(group(service["rayClusterConfig"], "inference"))["readinessProbe"]
    assert probe["httpGet"] == {"path": "/-/healthz", "port": 8000}
    assert yaml.safe_load(service["serveConfigV2"])["applications"]
    # KubeRay refuses it inside RayService and RayJob.
    assert "upgradeStrategy" not in service["rayClusterConfig"]


def test_ray_serve_takes_the_configuration_and_its_application_can_be_built(helm):
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    service = only(helm.render("haetsal", AWS | {"serving": {"enabled": True}}), "RayService")["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    for application in config.applications:
        module, _, function = application.import_path.partition(":")
        built = getattr(importlib.import_module(module), function)(application.args)
        assert isinstance(built, serve.Application)
    for pods in (service["rayClusterConfig"]["headGroupSpec"], group(service["rayClusterConfig"], "inference")):
        assert {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"} in ray(pods)["env"]


def test_a_driver_that_works_itself_is_not_on_the_head(helm):
    spec = only(helm.render("ray-job", FIXED | {"job": "evaluate", "driver": {"cpus": 4, "gpus": 0.5}}), "RayJob")[
        "spec"
    ]
    assert (spec["entrypointNumCpus"], spec["entrypointNumGpus"]) == (4, 0.5)
    assert not {"entrypointNumCpus", "entrypointNumGpus"} & only(helm.render("ray-job", FIXED), "RayJob")["spec"].keys()


def test_a_run(helm):
    objects = helm.render("ray-job", FIXED)
    assert yaml.safe_load(only(objects, "ConfigMap")["data"]["config.yaml"]) == yaml.safe_load(FIXED["config"])
    job = only(objects, "RayJob")
    spec = job["spec"]
    assert job["metadata"]["name"] == RUN
    assert spec["entrypoint"] == f"python -m jobs.train --config /etc/haetsal/config.yaml --run-id {RUN}"
    assert spec["backoffLimit"] == 2
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    cluster = spec["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False and "autoscalerOptions" not in cluster
    for template in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        container = ray(template)
        assert {"name": "config", "mountPath": "/etc/haetsal", "readOnly": True} in container["volumeMounts"]
        (attempt,) = (e for e in container["env"] if e["name"] == "HAETSAL_ATTEMPT")
        # The operator names every retry's cluster anew.
        assert attempt["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['ray.io/cluster']"
    budgets = {o["metadata"]["name"]: o["spec"]["minAvailable"] for o in objects if o["kind"] == "PodDisruptionBudget"}
    assert budgets == {f"{RUN}-head": 1, f"{RUN}-worker": 2}


def policies(spec: dict) -> set[tuple[str, str]]:
    rules = spec["deletionStrategy"]["deletionRules"]
    return {(r["policy"], r["condition"].get("jobStatus", "deployment")) for r in rules}


@pytest.mark.parametrize(
    ("values", "removed"),
    [
        (FIXED, {"DeleteWorkers", "DeleteCluster", "DeleteSelf"}),
        (ELASTIC, {"DeleteCluster", "DeleteSelf"}),  # KubeRay refuses DeleteWorkers beside the autoscaler
        (SHARED, {"DeleteSelf"}),  # and everything that is another's on a shared cluster
    ],
    ids=["fixed", "elastic", "shared"],
)
def test_what_goes_when_a_run_ends(values, removed, helm):
    spec = only(helm.render("ray-job", values), "RayJob")["spec"]
    assert "shutdownAfterJobFinishes" not in spec and "ttlSecondsAfterFinished" not in spec
    assert policies(spec) == {(p, status) for p in removed for status in ("SUCCEEDED", "FAILED", "deployment")}
    for status in ("SUCCEEDED", "FAILED"):
        after = {
            r["policy"]: r["condition"]["ttlSeconds"]
            for r in spec["deletionStrategy"]["deletionRules"]
            if r["condition"].get("jobStatus") == status
        }
        assert after.get("DeleteWorkers", 0) <= after.get("DeleteCluster", 0) <= after["DeleteSelf"]
        assert after.get("DeleteCluster", 3600) >= 3600  # logs can be read for an hour


def test_a_queued_run_has_the_form_that_kueue_takes(helm):
    job = only(helm.render("ray-job", QUEUED), "RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "runs"
    assert job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True and job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert "deletionStrategy" not in job["spec"]


def test_a_run_on_a_shared_cluster_brings_its_settings_along(helm):
    objects = helm.render("ray-job", SHARED)
    assert {o["kind"] for o in objects} == {"RayJob"}
    spec = only(objects, "RayJob")["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": "haetsal"} and "rayClusterSpec" not in spec
    sent = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["HAETSAL_CONFIG"]
    assert base64.b64decode(sent).decode() == SHARED["config"]
    assert not set(spec["runtimeEnvYAML"]) & set("$`\\!'")  # a shell reads it between double quotes
    assert "--config env:HAETSAL_CONFIG" in spec["entrypoint"]


def test_names_fit(helm):
    """KubeRay appends to them: 47 for jobs and services, 53 for clusters, 63 for everything of Kubernetes."""
    release = "r" * 37
    most = {"RayJob": 47, "RayService": 47, "RayCluster": 53, "CronJob": 52}
    objects = helm.render("haetsal", AWS | {"serving": {"enabled": True}}, release=release)
    objects += helm.render("ray-job", FIXED, release="r" * 47)
    for entry in objects:
        assert len(entry["metadata"]["name"]) <= most.get(entry["kind"], 63), entry["metadata"]["name"]
    assert names(objects, "RayService") == {f"{release}-serve"}
