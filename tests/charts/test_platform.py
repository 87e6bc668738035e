"""The rest of the platform's chart, template by template; and helm's own view of all charts."""

import base64
import statistics

import pytest
import yaml

from images.build import IMAGES
from jobs.serving.gateway.config import load as load_routes
from jobs.serving.gateway.keys import load as load_keys
from tests.charts.cases import ALL, AWS, CASES, NOTHING, POSTGRES
from tests.charts.helm import CHARTS, Helm, names, only, pods


@pytest.mark.parametrize("chart", ["ray-lib", "ray-job", "haetsal"])
def test_helm_lint_has_nothing_to_say(chart, helm):
    values = {} if chart == "ray-lib" else next(values for name, values, _ in CASES.values() if name == chart)
    done = helm.run("lint", "--strict", "--quiet", str(helm.charts / chart), "--values", "-", values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_renders(case):
    assert all({"apiVersion", "kind", "metadata"} <= set(entry) for entry in case)
    identities = [(e["kind"], e["metadata"].get("namespace"), e["metadata"]["name"]) for e in case]
    assert len(identities) == len(set(identities))


def test_every_object_says_whose_it_is(case):
    for entry in case:
        labels = entry["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "haetsal", entry["metadata"]
        assert labels["app.kubernetes.io/instance"]


def test_the_largest_chart_renders_within_two_seconds(helm):
    fresh = Helm(helm.binary, helm.charts)
    for _ in range(3):
        fresh.text("haetsal", AWS | ALL)
    assert statistics.median(fresh.seconds) <= 2.0


def test_nothing_is_made_that_was_not_asked_for(helm):
    kinds = {entry["kind"] for entry in helm.render("haetsal", AWS | NOTHING)}
    assert not kinds & {"RayCluster", "RayService", "CronJob", "PodMonitor", "PrometheusRule", "PriorityClass"}
    assert not kinds & {"Deployment", "StatefulSet", "ClusterQueue", "Namespace"}


def test_cronjobs_do_not_overlap_and_run_by_the_clock_of_seoul(helm):
    jobs = [entry for entry in helm.render("haetsal", AWS) if entry["kind"] == "CronJob"]
    assert {job["metadata"]["name"]: container(job)["command"][:3] for job in jobs} == {
        name: ["python", "-m", f"ops.{name}"] for name in ("backup", "health", "drill", "retention", "cost")
    }
    for job in jobs:
        spec = job["spec"]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["timeZone"] == "Asia/Seoul"
        assert spec["startingDeadlineSeconds"] >= 60
        assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] and spec["jobTemplate"]["spec"]["backoffLimit"] == 2
        assert "concurrency" not in job["metadata"]["name"]
    accounts = {job["metadata"]["name"]: pod(job)["serviceAccountName"] for job in jobs}
    assert accounts.pop("cost") == accounts["backup"]  # both read what runs left and publish a figure
    assert len(set(accounts.values())) == 4  # one identity each: who backs up cannot delete, who deletes cannot write


def pod(job: dict) -> dict:
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def container(job: dict) -> dict:
    return pod(job)["containers"][0]


def test_service_accounts_are_the_ones_with_a_cloud_role(helm):
    from terraform.platform.permissions import Targets, workloads

    targets = Targets(*["x"] * 9, "secret")
    wanted = {w.service_account for w in workloads(targets).values() if w.namespace == "haetsal"}
    assert names(helm.render("haetsal", AWS), "ServiceAccount") == wanted | {"gateway"}


def test_the_gateway_loses_no_request_when_it_is_replaced(helm):
    objects = helm.render("haetsal", AWS | ALL)
    spec = only(objects, "Deployment", "gateway")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in spec
    drain = yaml.safe_load(only(objects, "ConfigMap", "gateway-routes")["data"]["routes.yaml"])["drain"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > drain["announce_s"] + drain["finish_s"]
    scaler = only(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "gateway" and scaler["minReplicas"] >= 2
    assert only(objects, "PodDisruptionBudget", "gateway")["spec"]["maxUnavailable"] == 1
    service = only(objects, "Service", "gateway")["spec"]
    assert service["type"] == "ClusterIP"
    assert service["selector"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("profile", ["aws", "kind"])
def test_the_gateway_takes_the_files_that_it_is_given(profile, helm, tmp_path):
    """Mounted where the container's arguments look for them, and read by the gateway's own loader."""
    given = (AWS | ALL,) if profile == "aws" else ({}, "values-kind.yaml")
    objects = helm.render("haetsal", *given)
    for name, kind, key in (("routes", "ConfigMap", "gateway-routes"), ("keys", "Secret", "gateway-keys")):
        for file, text in only(objects, kind, key)["data"].items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_bytes(base64.b64decode(text) if kind == "Secret" else text.encode())
    config = load_routes(tmp_path / "routes/routes.yaml")
    (backend,) = config.backends.values()
    assert list(backend.urls) == ["http://haetsal-serve-serve-svc:8000"]
    assert config.models.keys() == {"haetsal"} and (config.feedback is not None) == (profile == "kind")
    assert config.keys_file and load_keys(config.keys_file).keys == {}
    container = only(objects, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (mounts["routes"], mounts["keys"]) == ("/etc/haetsal/routes", "/etc/haetsal/keys")
    dockerfile = (CHARTS.parent / "images/gateway/Dockerfile").read_text(encoding="utf-8")
    assert '"--config", "/etc/haetsal/routes/routes.yaml"' in dockerfile and '"--port", "8080"' in dockerfile
    assert "jobs.serving" in dockerfile and container["ports"] == [{"name": "http", "containerPort": 8080}]


def test_what_is_served_has_the_name_that_the_gateway_asks_for(helm):
    for given in ((AWS | ALL,), ({}, "values-kind.yaml")):
        objects = helm.render("haetsal", *given)
        serve = yaml.safe_load(only(objects, "RayService")["spec"]["serveConfigV2"])
        routes = yaml.safe_load(only(objects, "ConfigMap", "gateway-routes")["data"]["routes.yaml"])
        (application,) = serve["applications"]
        assert application["import_path"] == "jobs.serving.app:build"
        assert application["args"]["serving"]["name"] == routes["backends"]["engine"]["model"]


def test_the_store_on_kind_has_random_keys_and_the_buckets_of_the_settings(helm):
    objects = helm.render("haetsal", {}, "values-kind.yaml")
    again = helm.text("haetsal", {}, "values-kind.yaml")
    key = only(objects, "Secret", "object-store")["data"]["AWS_SECRET_ACCESS_KEY"]
    assert len(key) > 40 and key not in again
    job = only(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    assert job["command"][3:] == ["haetsal"]
    compile(job["command"][2], "buckets", "exec")


def test_serving_comes_before_runs(helm):
    objects = helm.render("haetsal", AWS)
    serving, batch = (only(objects, "PriorityClass", f"haetsal-{name}") for name in ("serving", "batch"))
    assert serving["value"] > batch["value"]
    assert batch["preemptionPolicy"] == "Never"


def test_queues_have_the_flavours_of_the_worker_groups(helm):
    objects = helm.render("haetsal", AWS | ALL)
    flavours = {e["metadata"]["name"]: e.get("spec", {}) for e in objects if e["kind"] == "ResourceFlavor"}
    assert flavours["haetsal-training"]["nodeLabels"] == {"node-type": "gpu-training"}
    (group,) = only(objects, "ClusterQueue")["spec"]["resourceGroups"]
    assert {f["name"] for f in group["flavors"]} == set(flavours)
    for flavour in group["flavors"]:
        assert [r["name"] for r in flavour["resources"]] == group["coveredResources"]
    assert only(objects, "LocalQueue")["spec"]["clusterQueue"] == only(objects, "ClusterQueue")["metadata"]["name"]


def test_notes_say_what_to_do_next(helm):
    for values, words in ((AWS, "The gateway is off"), (AWS | ALL, "keys.yaml")):
        chart = str(helm.charts / "haetsal")
        done = helm.run("install", "haetsal", chart, "--dry-run=client", "--values", "-", values=values)
        assert done.returncode == 0, done.stderr
        notes = done.stdout.partition("NOTES:")[2]
        assert "make train PROFILE=aws" in notes and words in notes
    assert (CHARTS / "ray-job" / "templates" / "NOTES.txt").exists()


def test_operations_read_settings_that_they_know(helm):
    """The ConfigMap is a settings file of ops/settings.py, whose tree is closed."""
    settings = pytest.importorskip("ops.settings", reason="the operations are not written yet")
    for values in (AWS, AWS | POSTGRES):
        text = only(helm.render("haetsal", values), "ConfigMap", "operations")["data"]["config.yaml"]
        settings.OpsSettings.model_validate(yaml.safe_load(text))


def test_only_backup_and_drill_see_the_databases_password(helm):
    for entry in helm.render("haetsal", AWS | POSTGRES):
        if entry["kind"] != "CronJob":
            continue
        sees = entry["metadata"]["name"] in ("backup", "drill")
        assert any(mount["name"] == "pgpass" for mount in container(entry)["volumeMounts"]) is sees
        sidecars = pod(entry).get("initContainers", [])
        assert [(s["name"], s["restartPolicy"]) for s in sidecars] == ([("pgpass", "Always")] if sees else [])


def test_every_image_of_ours_is_one_that_is_built(everything):
    ours = {
        c["image"] for _, pod in pods(everything) for c in pod["spec"]["containers"] if "seaweedfs" not in c["image"]
    }
    built = {image.rpartition("/")[2].partition(":")[0] for image in ours}
    assert built == set(IMAGES)
