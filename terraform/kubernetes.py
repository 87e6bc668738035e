"""The kubectl context of an environment, and the CRDs that Helm does not upgrade."""

import shutil
import subprocess

from jobs.errors import EnvironmentNotReady, RemoteError
from terraform.settings import Environment
from terraform.versions import Versions


def write_context(environment: Environment) -> str:
    """Write the cluster's context into the kubeconfig under the cluster's name, and return that name."""
    name = environment.cluster_name
    _run(["aws", "eks", "update-kubeconfig", "--name", name, "--alias", name, "--region", environment.region])
    return name


def apply_crds(versions: Versions, context: str) -> None:
    """Apply the CRDs of every chart that has some. Source: KubeRay's upgrade guide; server-side, as they are large."""
    for name, chart in versions.charts.items():
        if not chart.crds:
            continue
        show = ["helm", "show", "crds", name, "--repo", chart.repository, "--version", chart.version]
        crds = _run(show)
        if "CustomResourceDefinition" not in crds:
            raise RemoteError(f"{name} {chart.version} brought no CRDs; check `crds` in versions.yaml")
        kubectl = ["kubectl", "--context", context, "apply", "--server-side", "--force-conflicts", "-f", "-"]
        print(_run(kubectl, crds), end="")


def _run(command: list[str], stdin: str | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise EnvironmentNotReady(f"{command[0]} is not on PATH; install it")
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RemoteError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done.stdout
