"""A real kube-apiserver with etcd behind it: RBAC, Pod Security, watches and their limits are those of Kubernetes.

There is no kubelet, scheduler or operator: tests write what those would write.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client import ApiClient, ApiException

NAMESPACE = "haetsal"
ADMIN, NOBODY = "admin-token", "nobody-token"
_STARTS_WITHIN_S = 60
_TOOLS = os.pathsep.join(filter(None, (os.environ.get("KUBE_BIN"), os.environ["PATH"])))


def missing() -> str | None:
    """What keeps the server from starting on this machine."""
    absent = [name for name in ("etcd", "kube-apiserver", "openssl") if not shutil.which(name, path=_TOOLS)]
    return f"{', '.join(absent)} not on PATH or in KUBE_BIN" if absent else None


@dataclass(frozen=True)
class ApiServer:
    """A running server and the kubeconfigs that lead to it."""

    url: str
    folder: Path

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
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "users": [{"name": name, "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(tree))
        return path

    @property
    def api(self) -> ApiClient:
        """A client with all rights: what operator, kubelet and scheduler do is done through it."""
        return config.new_client_from_config(str(self.kubeconfig()), "kind-haetsal")


@contextmanager
def serve(folder: Path) -> Iterator[ApiServer]:
    """Start both processes and wait until the server is ready; stop them at the end."""
    etcd_port, peer_port, port = _free_ports(3)
    (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{NOBODY},nobody,2,\n')
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
    etcd = [
        _tool("etcd"), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
        "--listen-client-urls", f"http://127.0.0.1:{etcd_port}",
        "--advertise-client-urls", f"http://127.0.0.1:{etcd_port}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer_port}",
    ]  # fmt: skip
    server = [
        _tool("kube-apiserver"), "--etcd-servers", f"http://127.0.0.1:{etcd_port}",
        "--secure-port", str(port), "--bind-address", "127.0.0.1", "--cert-dir", str(folder / "certs"),
        "--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC",
        "--service-account-issuer", "https://kubernetes.default.svc",
        "--service-account-key-file", str(folder / "sa.key"),
        "--service-account-signing-key-file", str(folder / "sa.key"),
        "--service-cluster-ip-range", "10.96.0.0/24",
        "--disable-admission-plugins", "ServiceAccount",  # no controller makes the accounts and their tokens
        "--watch-cache=false",  # an etcd before 3.4.25 cannot tell a cache how far it is
    ]  # fmt: skip
    with ExitStack() as stack:
        for name, command in (("etcd", etcd), ("apiserver", server)):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(_end, process)
        running = ApiServer(f"https://127.0.0.1:{port}", folder)
        _wait_ready(running.url, process, folder / "apiserver.log")
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


def _tool(name: str) -> str:
    found = shutil.which(name, path=_TOOLS)
    assert found
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [made.getsockname()[1] for made in sockets]


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    unverified = ssl._create_unverified_context()
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            urllib.request.urlopen(f"{url}/readyz", context=unverified, timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # told to end in order, the server waits for its watches
    process.wait()
