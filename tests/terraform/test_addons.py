"""The add-ons: pinned releases, values wired to the platform, and the sidecar that carries MLflow's password."""

import json
import os
import stat
import subprocess
import sys
import time

import boto3
import pytest
import yaml

from ops import pgpass
from terraform.versions import ROOT

COMMON = {"kuberay-operator", "kube-prometheus-stack", "mlflow", "haetsal"}
AWS_ONLY = {"cluster-autoscaler", "nvidia-device-plugin"}


def releases(stacks, name: str) -> dict[str, dict]:
    return stacks[name, "addons"].all("helm_release")


def values(stacks, name: str, release: str) -> dict:
    return yaml.safe_load(releases(stacks, name)[release]["values"][0])


def test_each_profile_has_its_releases(stacks):
    assert set(releases(stacks, "kind")) == COMMON
    assert set(releases(stacks, "dev")) == COMMON | AWS_ONLY
    assert set(releases(stacks, "prod")) == COMMON | AWS_ONLY | {"aws-efa-k8s-device-plugin"}


def test_every_release_is_pinned_to_versions_yaml(stacks, versions):
    used = set()
    for (_, stack_name), stack in stacks.items():
        for name, release in stack.all("helm_release").items() if stack_name == "addons" else ():
            assert release["atomic"] and release["cleanup_on_fail"] and release["create_namespace"]
            if name == "haetsal":
                relative = release["chart"].removeprefix("${path.module}/")
                assert relative.startswith("../")
                assert (stack.path.parent / relative).resolve() == ROOT / "charts" / "haetsal"
                assert "version" not in release
                continue
            chart = versions.charts[name]
            used.add(name)
            assert release["version"] == chart.version
            assert release["skip_crds"] is chart.crds
            if chart.repository.startswith("oci://"):
                assert release["chart"] == f"{chart.repository}/{name}"
            else:
                assert (release["chart"], release["repository"]) == (name, chart.repository)
    assert used == set(versions.charts)


def test_gpu_plugin_reaches_every_tainted_pool(stacks):
    for name in ("dev", "prod"):
        taints = {
            (t["key"], t["value"], "NoSchedule")
            for group in stacks[name, "platform"].all("aws_eks_node_group").values()
            for t in group.get("taint", [])
        }
        plugin = values(stacks, name, "nvidia-device-plugin")
        assert taints == {(t["key"], t["value"], t["effect"]) for t in plugin["tolerations"]}
        affinity = plugin["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = affinity["nodeSelectorTerms"]
        label = term["matchExpressions"][0]["key"]
        for group in stacks[name, "platform"].all("aws_eks_node_group").values():
            assert (label in group["labels"]) == bool(group.get("taint"))


def test_controllers_run_on_the_system_pool(stacks):
    system = {"node-type": "system"}
    for name in ("dev", "prod"):
        for release in ("kuberay-operator", "cluster-autoscaler", "mlflow"):
            assert values(stacks, name, release)["nodeSelector"] == system
        prometheus = values(stacks, name, "kube-prometheus-stack")
        assert prometheus["prometheus"]["prometheusSpec"]["nodeSelector"] == system
        assert prometheus["grafana"]["nodeSelector"] == system
    for release in COMMON:
        assert "nodeSelector" not in json.dumps(values(stacks, "kind", release))


def test_grafana_has_no_default_password(stacks):
    for name in ("dev", "prod", "kind"):
        grafana = values(stacks, name, "kube-prometheus-stack")["grafana"]
        assert "adminPassword" in grafana and grafana["adminPassword"] is None


def test_mlflow_on_postgres_names_no_password(stacks):
    mlflow = values(stacks, "prod", "mlflow")
    uri = mlflow["mlflow"]["backendStoreUri"]
    assert uri.startswith("postgresql://mlflow@${data.terraform_remote_state")
    assert uri.endswith(":5432/mlflow?sslmode=require")
    assert mlflow["env"] == [{"name": "PGPASSFILE", "value": "/pgpass/pgpass"}]
    (sidecar,) = mlflow["extraInitContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert "master_user_secret0secret_arn" in sidecar["args"][1]
    compile(sidecar["command"][2], "pgpass", "exec")


def test_mlflow_without_a_database_keeps_sqlite_on_a_volume(stacks):
    for name in ("dev", "kind"):
        mlflow = values(stacks, name, "mlflow")
        assert mlflow["mlflow"]["backendStoreUri"] == "sqlite:////mlflow/mlflow.db"
        assert mlflow["storage"]["enabled"] is True
        assert "extraInitContainers" not in mlflow
    assert values(stacks, "dev", "mlflow")["mlflow"]["defaultArtifactRoot"].endswith("/mlflow")
    assert values(stacks, "kind", "mlflow")["mlflow"]["artifactsDestination"] == "/mlflow/artifacts"


def test_service_accounts_are_the_ones_with_a_role(stacks):
    identities = stacks["prod", "platform"].all("aws_eks_pod_identity_association")
    mlflow, autoscaler = values(stacks, "prod", "mlflow"), values(stacks, "prod", "cluster-autoscaler")
    assert mlflow["serviceAccount"]["name"] == identities["mlflow-identity"]["service_account"]
    assert autoscaler["rbac"]["serviceAccount"]["name"] == identities["cluster-autoscaler-identity"]["service_account"]
    for role, release in (("mlflow", "mlflow"), ("cluster-autoscaler", "cluster-autoscaler")):
        assert identities[f"{role}-identity"]["namespace"] == releases(stacks, "prod")[release]["namespace"]
    assert identities["train-identity"]["namespace"] == releases(stacks, "prod")["haetsal"]["namespace"]


# --- the password sidecar, run as the pod runs it, against a real Secrets Manager endpoint ---------------------------


@pytest.fixture
def secret(aws) -> str:
    client = boto3.client("secretsmanager", region_name="ap-northeast-2")
    text = json.dumps({"username": "mlflow", "password": r"a:b\c"})
    return client.create_secret(Name="db", SecretString=text)["ARN"]


def test_password_file_is_private_and_escaped(secret, tmp_path):
    path = tmp_path / "pgpass"
    pgpass.refresh(path, secret)
    assert path.read_text() == "*:*:*:mlflow:a\\:b\\\\c\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_sidecar_follows_a_rotation(secret, tmp_path, stacks):
    (sidecar,) = values(stacks, "prod", "mlflow")["extraInitContainers"]
    script = sidecar["command"][2].replace("REFRESH_S = 60", "REFRESH_S = 0.1")
    path = tmp_path / "pgpass"
    process = subprocess.Popen([sys.executable, "-c", script, str(path), secret], env=os.environ)
    try:
        assert wait_for(lambda: path.exists() and path.read_text().endswith(":a\\:b\\\\c\n"))
        boto3.client("secretsmanager", region_name="ap-northeast-2").put_secret_value(
            SecretId=secret, SecretString=json.dumps({"username": "mlflow", "password": "rotated"})
        )
        assert wait_for(lambda: path.read_text() == "*:*:*:mlflow:rotated\n")
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()


def wait_for(condition, timeout_s: float = 20) -> bool:
    """The file is polled as libpq would find it: it has no event to wait for."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
