"""Helm values of each release, as pure functions of where the cluster runs and what the platform made."""

from dataclasses import dataclass
from typing import Any

import yaml

from terraform.node_pool import WORKLOADS
from terraform.platform import database
from terraform.versions import ROOT, Versions

Values = dict[str, Any]

SYSTEM_NODES = {"node-type": WORKLOADS["system"].node_type}
GPU_TOLERATIONS = [
    {"key": workload.node_type, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    for workload in WORKLOADS.values()
    if workload.gpu
]
MLFLOW_PORT = 5000
MLFLOW_URI = f"http://mlflow.mlflow.svc:{MLFLOW_PORT}"


@dataclass(frozen=True)
class Aws:
    """What the add-ons use of the storage and platform stacks; database fields are none where MLflow keeps SQLite."""

    cluster_name: str
    region: str
    registry: str
    data_bucket: str
    artifacts_bucket: str
    backups_bucket: str
    database_address: str | None
    database_secret_arn: str | None
    prices: dict[str, float]
    """USD per machine and hour, by workload."""
    month_budget_usd: float


def kuberay(aws: Aws | None) -> Values:
    """The operator. Default memory limits (512 MiB) hold some 500 Ray pods; 1 GiB holds a thousand."""
    return {
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}},
        "metrics": {"serviceMonitor": {"enabled": True}},
        **_on_system_nodes(aws),
    }


def autoscaler(aws: Aws) -> Values:
    """Finds the node groups by their tags and prefers the pool that wastes least: no 8-GPU node for a 1-GPU pod."""
    return {
        "autoDiscovery": {"clusterName": aws.cluster_name},
        "awsRegion": aws.region,
        "rbac": {"serviceAccount": {"name": "cluster-autoscaler"}},
        "extraArgs": {
            "expander": "least-waste",
            "balance-similar-node-groups": True,
            "skip-nodes-with-system-pods": False,
            "scale-down-unneeded-time": "10m",
        },
        "serviceMonitor": {"enabled": True, "namespace": "kube-system"},
        "nodeSelector": SYSTEM_NODES,
    }


def device_plugin() -> Values:
    """NVIDIA's plugin on our GPU nodes. Its own affinity waits for labels of a feature-discovery we do not run."""
    term = {"matchExpressions": [{"key": "k8s.amazonaws.com/accelerator", "operator": "Exists"}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}, "tolerations": GPU_TOLERATIONS}


def efa_plugin() -> Values:
    """EFA's plugin on our GPU nodes; the chart itself selects the instance types that have EFA."""
    return {"tolerations": GPU_TOLERATIONS}


def monitoring(aws: Aws | None) -> Values:
    """Prometheus, Alertmanager and Grafana; they pick up every monitor, rule and dashboard in the cluster."""
    selectors = ("serviceMonitor", "podMonitor", "rule", "probe")
    volume = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}}
    storage = {"volumeClaimTemplate": {"spec": volume}}
    # EKS runs these where nothing can scrape them.
    hidden = {name: {"enabled": False} for name in ("kubeEtcd", "kubeScheduler", "kubeControllerManager")}
    return {
        "crds": {"enabled": False},
        "prometheus": {
            "prometheusSpec": {
                "retention": "15d",
                "retentionSize": "45GB",
                "storageSpec": storage,
                **{f"{kind}SelectorNilUsesHelmValues": False for kind in selectors},
                **_on_system_nodes(aws),
            }
        },
        "alertmanager": {"alertmanagerSpec": _on_system_nodes(aws)},
        "prometheusOperator": _on_system_nodes(aws),
        "kube-state-metrics": _on_system_nodes(aws),
        # null removes the chart's well-known default password; Grafana's chart then makes a random one in a Secret.
        "grafana": {
            "adminPassword": None,
            "sidecar": {"dashboards": {"searchNamespace": "ALL"}},
            **_on_system_nodes(aws),
        },
        **(hidden if aws else {}),
    }


def mlflow(versions: Versions, aws: Aws | None) -> Values:
    """The tracking server: PostgreSQL where the platform has one, otherwise SQLite on a volume."""
    repository, tag = versions.images["mlflow"].rsplit(":", 1)
    common: Values = {
        "fullnameOverride": "mlflow",
        "image": {"repository": repository, "tag": tag},
        "serviceAccount": {"create": True, "name": "mlflow"},
        # MLflow refuses other Host headers (DNS rebinding); localhost is `kubectl port-forward`.
        "server": {"value_options": {"port": MLFLOW_PORT, "allowed_hosts": "mlflow.mlflow*,localhost:*,127.0.0.1:*"}},
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
        "metrics": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        **_on_system_nodes(aws),
    }
    root = f"s3://{aws.artifacts_bucket}/mlflow" if aws else None
    store = {"defaultArtifactRoot": root} if root else {"artifactsDestination": "/mlflow/artifacts"}
    if aws and aws.database_address:
        return {**common, **_postgres(versions, aws, store)}
    return {
        **common,
        "mlflow": {**store, "backendStoreUri": "sqlite:////mlflow/mlflow.db"},
        "storage": {"enabled": True, "size": "20Gi"},
    }


def platform(aws: Aws | None) -> Values:
    """Our own chart: what it cannot know by itself, and on kind its own values for that."""
    if aws is None:
        kind: Values = yaml.safe_load((ROOT / "charts" / "haetsal" / "values-kind.yaml").read_text(encoding="utf-8"))
        return {**kind, "tracking": {"uri": MLFLOW_URI}}
    tracking = {"uri": MLFLOW_URI}
    if aws.database_address and aws.database_secret_arn:
        tracking["database"] = f"postgresql://{database.USER}@{aws.database_address}:{database.PORT}/{database.NAME}"
        tracking["databaseSecret"] = aws.database_secret_arn
    return {
        "profile": "aws",
        "tracking": tracking,
        "images": {"registry": aws.registry},
        "storage": {
            "root": f"s3://{aws.artifacts_bucket}",
            "data": f"s3://{aws.data_bucket}",
            "backups": f"s3://{aws.backups_bucket}",
        },
        "operations": {"prices": aws.prices, "monthBudget": aws.month_budget_usd},
    }


def _on_system_nodes(aws: Aws | None) -> Values:
    return {"nodeSelector": SYSTEM_NODES} if aws else {}


def _postgres(versions: Versions, aws: Aws, store: Values) -> Values:
    """MLflow on RDS. The password reaches libpq in a file that a sidecar keeps fresh; no value or state holds it."""
    mount = {"name": "pgpass", "mountPath": "/pgpass"}
    sidecar = {
        "name": "pgpass",
        "image": versions.images["mlflow"],
        "restartPolicy": "Always",  # a native sidecar: starts before the server, lives as long as the pod
        "command": ["python", "-c", (ROOT / "ops" / "pgpass.py").read_text(encoding="utf-8")],
        "args": ["/pgpass/pgpass", aws.database_secret_arn],
        "startupProbe": {"exec": {"command": ["test", "-s", "/pgpass/pgpass"]}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [mount],
    }
    uri = f"postgresql://{database.USER}@{aws.database_address}:{database.PORT}/{database.NAME}?sslmode=require"
    return {
        "replicaCount": 2,
        "mlflow": {**store, "backendStoreUri": uri},
        "env": [{"name": "PGPASSFILE", "value": "/pgpass/pgpass"}],
        "extraInitContainers": [sidecar],
        "extraVolumes": [{"name": "pgpass", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "extraVolumeMounts": [{**mount, "readOnly": True}],
    }
