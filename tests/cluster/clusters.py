"""Where a cluster comes from: $KUBECONFIG, else kind where Docker is, else processes of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from api_server import ApiServer

from jobs.errors import EnvironmentNotReady
from terraform.versions import load_versions
from tests.cluster import build, control_plane
from tests.cluster.kube import Kube, tool

KIND = "haetsal-tests"
CONTEXT = "kind-haetsal"
"""What the profile `kind` calls its context."""
_KWOK_CHARTS = "https://kwok.sigs.k8s.io/charts/"


@contextmanager
def obtain(folder: Path) -> Iterator[ApiServer]:
    """A cluster with KubeRay's operator and KWOK. Raises EnvironmentNotReady where there can be none."""
    match build.source(dict(os.environ)):
        case "KUBECONFIG":
            yield given(Path(os.environ["KUBECONFIG"]), folder)
        case "kind":
            kubeconfig = folder / "kind"
            command = ["kind", "create", "cluster", "--name", KIND, "--kubeconfig", str(kubeconfig), "--wait", "120s"]
            subprocess.run(command, check=True)
            try:
                yield given(kubeconfig, folder)
            finally:
                subprocess.run(["kind", "delete", "cluster", "--name", KIND], check=True)
        case _:
            with control_plane.run(folder) as server:
                yield server


def given(kubeconfig: Path, folder: Path) -> ApiServer:
    """Somebody's cluster, made ready. Raises EnvironmentNotReady if the platform is installed there: the tests would
    delete it."""
    server = _Given("", folder, tree=_renamed(kubeconfig))
    kube = Kube(server.kubeconfig())
    if kube.ask("GET", "/api/v1/namespaces/haetsal") is not None:
        raise EnvironmentNotReady(
            f"{kube.url}: has a namespace haetsal; these tests would delete what is in it, use an empty cluster"
        )
    control_plane.install_crds(kube)
    version = load_versions().charts["kuberay-operator"]
    wanted = (
        ("kuberay-operator", control_plane.OPERATOR_NAMESPACE, version.repository, ["--version", version.version]),
        ("kwok", "kube-system", _KWOK_CHARTS, []),
        ("stage-fast", "kube-system", _KWOK_CHARTS, []),
    )
    for name, namespace, repository, options in wanted:
        label = f"labelSelector=app.kubernetes.io/name={name}"
        if not kube.items(f"/apis/apps/v1/deployments?{label}"):
            command = [tool("helm"), "upgrade", "--install", name, name, "--repo", repository, *options, "--namespace"]
            command += [namespace, "--create-namespace", "--wait", "--kubeconfig", str(kube.path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise EnvironmentNotReady(f"{name} cannot be installed: {done.stderr.strip()}")
    return server


class _Given(ApiServer):
    """A cluster that is not ours: its processes cannot be touched."""

    def __init__(self, url: str, folder: Path, tree: dict[str, Any]) -> None:
        super().__init__(url, folder)
        object.__setattr__(self, "tree", tree)

    def kubeconfig(self, token: str = "", url: str | None = None) -> Path:
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(self.tree))  # type: ignore[attr-defined]
        return path


def _renamed(kubeconfig: Path) -> dict[str, Any]:
    """The kubeconfig with its current context alone, under the name that the profile expects."""
    said = subprocess.run(
        [tool("kubectl"), "--kubeconfig", str(kubeconfig), "config", "view", "--minify", "--flatten", "-o", "yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if said.returncode != 0:
        raise EnvironmentNotReady(f"{kubeconfig}: {said.stderr.strip()}")
    tree: dict[str, Any] = yaml.safe_load(said.stdout)
    (context,) = tree["contexts"]
    context["name"] = tree["current-context"] = CONTEXT
    context["context"]["namespace"] = "haetsal"
    return tree
