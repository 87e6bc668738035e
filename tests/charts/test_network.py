"""Network policies: everything is denied, and what is allowed is exactly the table of flows, on both sides."""

from dataclasses import dataclass

import pytest
import yaml

from tests.charts.cases import ALL, AWS, FIXED
from tests.charts.helm import CHARTS, RUN, only, pods

FLOWS = yaml.safe_load((CHARTS / "haetsal" / "flows.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class End:
    """A pod in a namespace, or an address outside."""

    namespace: str = "haetsal"
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""


def pod(**labels: str) -> End:
    return End(labels=tuple(labels.items()))


def ray(cluster: str, kind: str) -> End:
    labels = {"haetsal/cluster": cluster, "ray.io/node-type": kind, "ray.io/is-ray-node": "yes"}
    return End(labels=tuple(labels.items()))


def other(namespace: str, **labels: str) -> End:
    return End(namespace, tuple((key.replace("_", "/"), value) for key, value in labels.items()))


def selects(selector: dict, end: End) -> bool:
    return selector.get("matchLabels", {}).items() <= dict(end.labels).items()


def peer_matches(peer: dict, end: End) -> bool:
    import ipaddress

    if "ipBlock" in peer:
        return bool(end.address) and ipaddress.ip_address(end.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if end.address:
        return False
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"].get("matchLabels", {}).get("kubernetes.io/metadata.name", end.namespace)
        return wanted == end.namespace and selects(peer.get("podSelector", {}), end)
    return end.namespace == "haetsal" and selects(peer["podSelector"], end)


def allowed(policies: list[dict], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is let out of its source and into its target, as NetworkPolicy defines it."""
    return all(
        _side(policies, direction, own, peer, port, protocol)
        for direction, own, peer in (("Egress", source, target), ("Ingress", target, source))
        if own.namespace == "haetsal" and not own.address
    )


def _side(policies: list[dict], direction: str, own: End, peer: End, port: int, protocol: str) -> bool:
    word = {"Egress": "to", "Ingress": "from"}[direction]
    concerned = [
        p["spec"] for p in policies if direction in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], own)
    ]
    assert concerned, "default-deny selects every pod"
    return any(
        any(peer_matches(candidate, peer) for candidate in rule[word])
        and ("ports" not in rule or any(_port(entry, port, protocol) for entry in rule["ports"]))
        for spec in concerned
        for rule in spec.get(direction.lower(), [])
    )


def _port(entry: dict, port: int, protocol: str) -> bool:
    return entry["protocol"] == protocol and entry["port"] <= port <= entry.get("endPort", entry["port"])


@pytest.fixture(scope="module")
def policies(helm) -> list[dict]:
    objects = helm.render("haetsal", AWS | ALL) + helm.render("ray-job", FIXED)
    return [o for o in objects if o["kind"] == "NetworkPolicy"]


OPERATOR = other("ray-system", **{"app.kubernetes.io_name": "kuberay-operator"})
PROMETHEUS = other("monitoring", **{"app.kubernetes.io_name": "prometheus"})
GATEWAY = pod(**{"app.kubernetes.io/name": "gateway"})
SUBMITTER = pod(**{"haetsal/role": "submitter"})
BACKUP = pod(**{"haetsal/role": "operations", "haetsal/operation": "backup"})
DRILL = pod(**{"haetsal/role": "operations", "haetsal/operation": "drill"})
HEALTH = pod(**{"haetsal/role": "operations", "haetsal/operation": "health"})
DNS = other("kube-system", **{"k8s-app": "kube-dns"})
MLFLOW = other("mlflow", **{"app.kubernetes.io_name": "mlflow"})
S3, API, DATABASE, IDENTITY = (End(address=a) for a in ("52.219.60.1", "10.20.3.4", "10.20.9.9", "169.254.170.23"))
HEAD, WORKER = ray(RUN, "head"), ray(RUN, "worker")
SERVE = ray("haetsal-serve", "worker")
GATEWAY_WITH_FEEDBACK = {"enabled": True, "feedback": "s3://artifacts/feedback"}

NEEDED = {
    "dns": (WORKER, DNS, 53, "UDP"),
    "dns over tcp": (GATEWAY, DNS, 53, "TCP"),
    "within a run": (WORKER, HEAD, 6379, "TCP"),
    "within a run, back": (HEAD, WORKER, 52365, "TCP"),
    "worker to worker": (WORKER, WORKER, 40123, "TCP"),
    "s3": (WORKER, S3, 443, "TCP"),
    "identity": (WORKER, IDENTITY, 80, "TCP"),
    "autoscaler": (HEAD, API, 443, "TCP"),
    "tracking": (HEAD, MLFLOW, 5000, "TCP"),
    "submission": (SUBMITTER, HEAD, 8265, "TCP"),
    "operator": (OPERATOR, HEAD, 8265, "TCP"),
    "operator asks the proxy": (OPERATOR, ray("haetsal-serve", "head"), 8000, "TCP"),
    "metrics": (PROMETHEUS, WORKER, 8080, "TCP"),
    "autoscaler's metrics": (PROMETHEUS, HEAD, 44217, "TCP"),
    "gateway to serve": (GATEWAY, SERVE, 8000, "TCP"),
    "gateway to replicas": (GATEWAY, SERVE, 30500, "TCP"),
    "clients": (other("shop"), GATEWAY, 8080, "TCP"),
    "gateway's metrics": (PROMETHEUS, GATEWAY, 8080, "TCP"),
    "backup to s3": (BACKUP, S3, 443, "TCP"),
    "backup to api": (BACKUP, API, 6443, "TCP"),
    "backup to database": (BACKUP, DATABASE, 5432, "TCP"),
    "drill to database": (DRILL, DATABASE, 5432, "TCP"),
    "backup to dashboard": (BACKUP, HEAD, 8265, "TCP"),
    "health to serve": (HEALTH, SERVE, 8000, "TCP"),
    "alerts": (HEALTH, other("monitoring", **{"app.kubernetes.io_name": "alertmanager"}), 9093, "TCP"),
}
DENIED = {
    "a run to another run": (WORKER, ray("train-20261122-101501-0000", "head"), 6379, "TCP"),
    "a run to the dashboard of another": (WORKER, ray("haetsal", "head"), 8265, "TCP"),
    "a run to serving": (WORKER, SERVE, 8000, "TCP"),
    "clients past the gateway": (other("shop"), SERVE, 8000, "TCP"),
    "clients to a dashboard": (other("shop"), HEAD, 8265, "TCP"),
    "gateway to a dashboard": (GATEWAY, HEAD, 8265, "TCP"),
    "gateway to a run": (GATEWAY, WORKER, 8000, "TCP"),
    "gateway to the internet": (GATEWAY, S3, 443, "TCP"),
    "gateway to the api": (GATEWAY, API, 6443, "TCP"),
    "submitter to the internet": (SUBMITTER, S3, 443, "TCP"),
    "submitter to a worker": (SUBMITTER, WORKER, 8265, "TCP"),
    "worker to the api": (WORKER, API, 6443, "TCP"),
    "worker to the database": (WORKER, DATABASE, 5432, "TCP"),
    "health to the database": (HEALTH, DATABASE, 5432, "TCP"),
    "mail from a worker": (WORKER, S3, 25, "TCP"),
    "dns elsewhere": (WORKER, S3, 53, "UDP"),
    "prometheus to a dashboard": (PROMETHEUS, HEAD, 8265, "TCP"),
    "anyone in monitoring": (other("monitoring", app="shell"), WORKER, 8080, "TCP"),
    "anyone in the operator's namespace": (other("ray-system", app="shell"), HEAD, 8265, "TCP"),
    "instance metadata": (WORKER, End(address="169.254.169.254"), 80, "TCP"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_open(name, policies):
    assert allowed(policies, *NEEDED[name])


@pytest.mark.parametrize("name", DENIED)
def test_what_is_not_needed_is_closed(name, policies):
    assert not allowed(policies, *DENIED[name])


def test_everything_is_denied_first(policies):
    deny = only(policies, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("profile", ["aws", "kind"])
def test_policies_are_the_table(profile, helm):
    objects = helm.render("haetsal", AWS) if profile == "aws" else helm.render("haetsal", {}, "values-kind.yaml")
    made = {o["metadata"]["name"] for o in objects if o["kind"] == "NetworkPolicy"}
    wanted = {
        f"{flow['name']}-{side}"
        for flow in FLOWS
        if flow.get("profile", profile) == profile and (profile == "kind" or not flow.get("feedback"))
        for side, end in (("egress", flow["from"]), ("ingress", flow["to"]))
        if "ours" in end
    }
    serving = {"haetsal-serve-within"} if profile == "kind" else set()
    assert made == wanted | serving | {"default-deny", "haetsal-within"}
    assert all(len(flow["why"].split()) >= 3 for flow in FLOWS)


def test_every_selector_finds_a_pod_of_ours(everything):
    """A flow for a label that no pod has would be a hole that nobody sees, or a flow that does not work."""
    added = {"ray.io/is-ray-node": {"yes"}, "ray.io/node-type": {"head", "worker"}}  # by KubeRay
    labels: dict[str, set[str]] = {key: set(values) for key, values in added.items()}
    for _, template in pods(everything):
        for key, value in template.get("metadata", {}).get("labels", {}).items():
            labels.setdefault(key, set()).add(value)
    for flow in FLOWS:
        for end in (flow["from"], flow["to"]):
            for key, value in end.get("ours", {}).items():
                value = f"haetsal-{value}" if key == "haetsal/cluster" else value
                assert value in labels.get(key, set()), flow["name"]


def test_the_gateway_reaches_s3_only_for_feedback(helm):
    given = helm.render("haetsal", AWS | {"serving": {"enabled": True}, "gateway": GATEWAY_WITH_FEEDBACK})
    policies = [o for o in given if o["kind"] == "NetworkPolicy"]
    assert allowed(policies, GATEWAY, S3, 443) and allowed(policies, GATEWAY, IDENTITY, 80)
    assert not allowed(policies, GATEWAY, API, 6443)


def test_only_named_namespaces_call_the_gateway(helm):
    closed = helm.render("haetsal", AWS | ALL | {"network": {"gatewayClients": ["shop"]}})
    policies = [o for o in closed if o["kind"] == "NetworkPolicy"]
    assert allowed(policies, other("shop"), GATEWAY, 8080)
    assert not allowed(policies, other("blog"), GATEWAY, 8080)
