"""A real kube-apiserver with etcd behind it: RBAC, Pod Security, watches and their limits are those of Kubernetes.

There is no kubelet, scheduler or operator: tests write what those would write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client import ApiClient, ApiException
from processes import Process, free_ports

NAMESPACE = "haetsal"
ADMIN, NOBODY = "admin-token", "nobody-token"
_STARTS_WITHIN_S = 60
_TOOLS = os.pathsep.join(filter(None, (os.environ.get("KUBEBUILDER_ASSETS"), os.environ["PATH"])))


def missing() -> str | None:
    """What keeps the server from starting on this machine."""
    absent = [name for name in ("etcd", "kube-apiserver", "openssl") if not shutil.which(name, path=_TOOLS)]
    return f"{', '.join(absent)} not on PATH or in KUBEBUILDER_ASSETS" if absent else None


@dataclass(frozen=True)
class ApiServer:
    """A running server and the kubeconfigs that lead to it."""

    url: str
    folder: Path
    processes: dict[str, Process] = field(default_factory=dict)

    def kubeconfig(self, token: str = ADMIN, url: str | None = None) -> Path:
        """A kubeconfig whose context is the kind profile's."""
        path = self.folder / f"kubeconfig-{token}-{abs(hash(url)):x}"
        name, authority = "kind-haetsal", self.folder / "certs" / "apiserver.crt"
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {"name": name, "cluster": {"server": url or self.url, "certificate-authority": str(authority)}}
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": NAMESPACE}}],
            "users": [{"name": name, "user": {"token": token}}],
        }
        fresh = path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(tree))
        return fresh.replace(path)  # a program that starts just now never reads half of it

    @property
    def api(self) -> ApiClient:
        """A client with all rights: what operator, kubelet and scheduler do is done through it."""
        return config.new_client_from_config(str(self.kubeconfig()), "kind-haetsal")

    def wait_ready(self) -> None:
        """Wait until the server serves; fails with its last words."""
        self.processes["kube-apiserver"].wait_answers(f"{self.url}/readyz", _STARTS_WITHIN_S)

    def restart(self) -> None:
        """End the server at once and start it again; its objects are etcd's."""
        process = self.processes["kube-apiserver"]
        process.kill()
        process.start()
        self.wait_ready()


ALONE = (
    "--disable-admission-plugins=ServiceAccount",  # no controller makes the accounts and their tokens
    "--watch-cache=false",  # an etcd before 3.4.25 cannot tell a cache how far it is
)
"""Options of a server with no controllers beside it."""


@contextmanager
def serve(folder: Path, tools: str = _TOOLS, options: Sequence[str] = ALONE) -> Iterator[ApiServer]:
    """Start both programs, found along the path `tools`, and wait until they serve; kill them at the end."""
    etcd_port, peer_port, port = free_ports(3)
    (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{NOBODY},nobody,2,\n')
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
    etcd = [
        _tool("etcd", tools), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
        "--listen-client-urls", f"http://127.0.0.1:{etcd_port}",
        "--advertise-client-urls", f"http://127.0.0.1:{etcd_port}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer_port}",
    ]  # fmt: skip
    server = [
        _tool("kube-apiserver", tools), "--etcd-servers", f"http://127.0.0.1:{etcd_port}",
        "--secure-port", str(port), "--bind-address", "127.0.0.1", "--cert-dir", str(folder / "certs"),
        "--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC",
        "--service-account-issuer", "https://kubernetes.default.svc",
        "--service-account-key-file", str(folder / "sa.key"),
        "--service-account-signing-key-file", str(folder / "sa.key"),
        "--service-cluster-ip-range", "10.96.0.0/16", *options,
    ]  # fmt: skip
    running = ApiServer(f"https://127.0.0.1:{port}", folder)
    with ExitStack() as stack:
        for name, command in (("etcd", etcd), ("kube-apiserver", server)):
            process = running.processes[name] = Process(command, folder / f"{name}.log")
            stack.callback(process.kill)
            process.start()
        running.wait_ready()
        yield running


def prepare(server: ApiServer) -> None:
    """The namespace, and the kinds of KubeRay that runs are made of."""
    api = server.api
    client.CoreV1Api(api).create_namespace({"metadata": {"name": NAMESPACE}})
    extensions = client.ApiextensionsV1Api(api)
    for kind in ("RayJob", "RayCluster"):
        extensions.create_custom_resource_definition(_definition(kind))
    custom, deadline = client.CustomObjectsApi(api), time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            for plural in ("rayjobs", "rayclusters"):
                custom.list_namespaced_custom_object("ray.io", "v1", NAMESPACE, plural)
            return
        except ApiException:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _definition(kind: str) -> dict[str, Any]:
    """Group, names and status subresource as KubeRay's; the fields are checked by the tests of the charts."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "metadata": {"name": f"{plural}.ray.io"},
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }


def _tool(name: str, tools: str) -> str:
    found = shutil.which(name, path=tools)
    assert found
    return found
