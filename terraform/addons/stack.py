"""The add-ons stack: pinned Helm releases, the same ones on EKS and on kind as far as they apply there."""

import os
from pathlib import Path

import yaml
from cdktn import App, Fn, TerraformStack
from cdktn_provider_helm.provider import HelmProvider, HelmProviderKubernetes, HelmProviderKubernetesExec
from cdktn_provider_helm.release import Release

from terraform import platform_facts
from terraform.addons import values
from terraform.backend import use_s3_state
from terraform.platform.stack import Platform
from terraform.settings import Environment, Kind
from terraform.storage.stack import Storage
from terraform.versions import ROOT, Versions, load_prices

RELEASE_TIMEOUT_S = 900


def aws_addons_stack(
    app: App, environment: Environment, versions: Versions, storage: Storage, platform: Platform
) -> None:
    """Add the add-ons of an AWS environment, wired to the outputs of its storage and platform stacks."""
    stack = TerraformStack(app, "addons")
    use_s3_state(stack, environment)
    cluster = platform.cluster
    login = ["eks", "get-token", "--cluster-name", cluster.name, "--region", environment.region, "--output", "json"]
    HelmProvider(
        stack,
        "helm",
        kubernetes=HelmProviderKubernetes(
            host=cluster.endpoint,
            cluster_ca_certificate=Fn.base64decode(cluster.certificate_authority.get(0).data),
            exec=HelmProviderKubernetesExec(
                api_version="client.authentication.k8s.io/v1beta1", command="aws", args=login
            ),
        ),
    )
    database = platform.database
    cost = platform_facts.cost(environment, load_prices())
    aws = values.Aws(
        cluster_name=cluster.name,
        region=environment.region,
        registry=environment.registry,
        data_bucket=storage.buckets.data.resource.id,
        artifacts_bucket=storage.buckets.artifacts.resource.id,
        backups_bucket=storage.buckets.backups.resource.id,
        database_address=database.address if database else None,
        database_secret_arn=database.secret_arn if database else None,
        prices=cost["usd_per_hour"],
        month_budget_usd=cost["month_budget_usd"],
    )
    first = [
        _release(stack, versions, "nvidia-device-plugin", "kube-system", values.device_plugin()),
        *(
            [_release(stack, versions, "aws-efa-k8s-device-plugin", "kube-system", values.efa_plugin())]
            if any(pool.efa for pool in environment.node_pools)
            else []
        ),
    ]
    monitoring = _release(stack, versions, "kube-prometheus-stack", "monitoring", values.monitoring(aws))
    _release(stack, versions, "cluster-autoscaler", "kube-system", values.autoscaler(aws), [monitoring])
    _ours(stack, app, versions, aws, [monitoring, *first])


def kind_addons_stack(app: App, kind: Kind, versions: Versions) -> None:
    """Add the add-ons that run on a local kind cluster. Its state is a Secret in that cluster, and dies with it."""
    stack = TerraformStack(app, "addons")
    backend = {"secret_suffix": "haetsal-addons", "namespace": "default", "config_path": "~/.kube/config"}
    stack.add_override("terraform.backend.kubernetes", {**backend, "config_context": kind.kube_context})
    stack.add_override("terraform.backend.local", None)  # what cdktn adds to a stack without one of its own backends
    HelmProvider(
        stack,
        "helm",
        kubernetes=HelmProviderKubernetes(config_path="~/.kube/config", config_context=kind.kube_context),
    )
    monitoring = _release(stack, versions, "kube-prometheus-stack", "monitoring", values.monitoring(None))
    _ours(stack, app, versions, None, [monitoring])


def _ours(stack: TerraformStack, app: App, versions: Versions, aws: values.Aws | None, after: list[Release]) -> None:
    """The releases of both profiles; `after` brings the monitors' CRDs' controller and the GPU plugins."""
    operator = _release(stack, versions, "kuberay-operator", "ray-system", values.kuberay(aws), after)
    mlflow = _release(stack, versions, "mlflow", "mlflow", values.mlflow(versions, aws), after)
    # Relative to where Terraform runs, so that the JSON names no path of the machine that synthesised it.
    here = Path(app.outdir).resolve() / "stacks" / stack.node.id
    _helm(
        stack,
        "haetsal",
        "haetsal",
        values.platform(aws),
        [operator, mlflow],
        chart=f"${{path.module}}/{os.path.relpath(ROOT / 'charts' / 'haetsal', here)}",
        dependency_update=True,
    )


def _release(
    stack: TerraformStack,
    versions: Versions,
    name: str,
    namespace: str,
    settings: values.Values,
    after: list[Release] | None = None,
) -> Release:
    chart = versions.charts[name]
    oci = chart.repository.startswith("oci://")
    return _helm(
        stack,
        name,
        namespace,
        settings,
        after or [],
        chart=f"{chart.repository}/{name}" if oci else name,
        repository=None if oci else chart.repository,
        version=chart.version,
        # One owner per CRD: `make crds` applies them, because Helm installs CRDs once and never upgrades them.
        skip_crds=chart.crds,
    )


def _helm(
    stack: TerraformStack,
    name: str,
    namespace: str,
    settings: values.Values,
    after: list[Release],
    *,
    chart: str,
    repository: str | None = None,
    version: str | None = None,
    skip_crds: bool = False,
    dependency_update: bool = False,
) -> Release:
    return Release(
        stack,
        name,
        name=name,
        namespace=namespace,
        create_namespace=True,
        chart=chart,
        repository=repository,
        version=version,
        skip_crds=skip_crds,
        dependency_update=dependency_update,
        atomic=True,
        cleanup_on_fail=True,
        timeout=RELEASE_TIMEOUT_S,
        max_history=5,
        values=[yaml.safe_dump(settings, sort_keys=False, width=100_000)],
        depends_on=list(after),
    )
