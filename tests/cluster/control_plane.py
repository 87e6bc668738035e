"""A control plane of real components as plain processes: etcd, API server, controllers, scheduler, KubeRay, KWOK.

Everything is as on a cluster but the nodes: KWOK plays kubelets for nodes that carry its annotation, and
`process_node.py` runs the containers of one more node as processes of this machine.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from api_server import ApiServer, serve
from processes import Process, free_ports

from tests.charts import crds
from tests.cluster import audit, build, kwok
from tests.cluster.kube import Kube, is_true, path

OPERATOR_NAMESPACE = "ray-system"
_CONTROLLERS_LOOK_EVERY = "1s"
_LEASE_S = 15
"""A kubelet's word that it is there holds for so long: 40 s on a cluster, where networks are slow."""
_GRACE_S = 5
"""A node whose word is older than that by so much is not ready."""


@contextmanager
def run(folder: Path, lease_s: int = _LEASE_S) -> Iterator[ApiServer]:
    """Everything, started in `folder`; what is still to be built is built first. Raises EnvironmentNotReady.

    `lease_s`: how long the word of a node's kubelet holds.
    """
    root = build.cache(dict(os.environ))
    build.build(root)
    tools = build.search_path(root)
    with serve(folder, tools, audit.options(folder)) as server, ExitStack() as stack:
        kube = Kube(server.kubeconfig())
        install_crds(kube)
        probe = f"127.0.0.1:{free_ports(1)[0]}"
        for name, command in commands(server, folder, tools, probe, lease_s).items():
            process = server.processes[name] = Process(command, folder / f"{name}.log", environment(folder))
            stack.callback(process.kill)
            process.start()
        announce_operator(kube)
        server.processes["kuberay-operator"].wait_answers(f"http://{probe}/readyz")
        yield server


def commands(server: ApiServer, folder: Path, tools: str, probe: str, lease_s: int) -> dict[str, list[str]]:
    """Command lines of what stands beside the API server, by name; the operator is asked at `probe` how it is."""
    kubeconfig, ports = str(server.kubeconfig()), iter(free_ports(2))
    places = [Path(place) for place in tools.split(os.pathsep)]
    tool = {path.name: str(path) for place in places for path in place.iterdir()}
    return {
        "kube-controller-manager": [
            tool["kube-controller-manager"], "--kubeconfig", kubeconfig, "--leader-elect=false",
            "--service-account-private-key-file", str(folder / "sa.key"),
            "--root-ca-file", str(folder / "certs" / "apiserver.crt"),
            "--secure-port", str(next(ports)), "--bind-address", "127.0.0.1", "--kube-api-qps=500",
            "--kube-api-burst=1000", "--node-monitor-period", _CONTROLLERS_LOOK_EVERY,
            "--node-monitor-grace-period", f"{lease_s + _GRACE_S}s",
            "--concurrent-gc-syncs=4", "--cert-dir", str(folder / "kcm"),
        ],
        "kube-scheduler": [
            tool["kube-scheduler"], "--kubeconfig", kubeconfig, "--leader-elect=false",
            "--secure-port", str(next(ports)), "--bind-address", "127.0.0.1",
            "--kube-api-qps=500", "--kube-api-burst=1000", "--cert-dir", str(folder / "scheduler"),
        ],
        "kwok": kubelets(server, tools, lease_s=lease_s),
        "kuberay-operator": [
            tool["kuberay-operator"], "--kubeconfig", kubeconfig, "--metrics-addr=0",
            "--health-probe-bind-address", probe, "--enable-leader-election=false",
            "--use-kubernetes-proxy",  # outside the cluster's network, it reaches Ray's heads as kubectl does
            "--reconcile-concurrency=4", "--qps=500", "--burst=1000",
        ],
    }  # fmt: skip


def kubelets(
    server: ApiServer, tools: str, of: str = kwok.FAKE, lease_s: int = _LEASE_S, pods: str = "198.18.0.0/16"
) -> list[str]:
    """Command line of the KWOK that plays the kubelets of all nodes annotated with `of`; their pods get addresses out
    of `pods`."""
    (port,) = free_ports(1)
    program = shutil.which("kwok", path=tools)
    assert program
    return [
        program, "--kubeconfig", str(server.kubeconfig()), "--config", str(kwok.STAGES), "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector", f"{kwok.ANNOTATION}={of}",
        "--server-address", f"127.0.0.1:{port}", f"--node-lease-duration-seconds={lease_s}", f"--cidr={pods}",
    ]  # fmt: skip


@contextmanager
def doomed_kubelets(server: ApiServer) -> Iterator[Process]:
    """A further KWOK, for nodes that are to go away: killed, it is as if they lost power."""
    tools = build.search_path(build.cache(dict(os.environ)))
    command = kubelets(server, tools, kwok.DOOMED, pods="198.19.0.0/16")
    process = Process(command, server.folder / "kwok-doomed.log", environment(server.folder))
    process.start()
    try:
        yield process
    finally:
        process.kill()


def environment(folder: Path) -> dict[str, str]:
    """Of the components: nothing of whoever runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder)}


def install_crds(kube: Kube) -> None:
    """All kinds of KubeRay, and those of Kueue and the Prometheus operator where their modules can be had."""
    kuberay = build.version(build.TOOLS / "controllers", build.KUBERAY)
    files = [str(crds.folder("ray.io", kuberay))]
    for group in set(crds.MODULES) - {"ray.io"}:
        with suppress(pytest.skip.Exception):
            files += [str(crds.folder(group, kuberay) / f"{name}.yaml") for name in crds.FILES[group]]
    kube.kubectl("apply", "--server-side", *(f"--filename={file}" for file in files))
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for name in [item["metadata"]["name"] for item in kube.items(definitions)]:
        kube.wait(f"{definitions}?fieldSelector=metadata.name={name}", lambda item: is_true(item, "Established"))


def announce_operator(kube: Kube) -> None:
    """The Deployment that the operator's chart would make, for those who ask whether the operator is up."""
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "kuberay-operator"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    kube.ask("POST", "/api/v1/namespaces", {"metadata": {"name": OPERATOR_NAMESPACE}})
    body = {"metadata": {"name": "kuberay-operator", "labels": labels}, "spec": spec}
    kube.ask("POST", path(OPERATOR_NAMESPACE, "deployments"), body)


def own_address() -> str:
    """This machine's address, by which an API server may reach it: loopback it does not proxy to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))  # no packet is sent; the kernel only picks an address
        return str(probe.getsockname()[0])
