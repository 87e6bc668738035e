"""What each service account may and may not, by the API server's own answers."""

from __future__ import annotations

from typing import Any

import pytest
from api_server import NAMESPACE

from tests.cluster.kube import Answer, Kube
from tests.cluster.release import Release
from tests.cluster.rights import TABLE, Right

ACCOUNTS = (
    "train", "preprocess", "serve", "gateway", "backup-writer", "restore-reader", "retention-deleter", "health-checker",
)  # fmt: skip
METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
NAMESPACES = (NAMESPACE, "haetsal-drill", "ray-system", "kube-system", "default")


def url(group: str, resource: str, namespace: str | None, name: str, verb: str) -> str:
    version = "v1"
    root = f"/apis/{group}/{version}" if group else "/api/v1"
    inside = f"/namespaces/{namespace}" if namespace and resource != "namespaces" else ""
    tail = "" if verb in ("list", "create", "watch") else f"/{name}"
    query = {"watch": "?watch=true&timeoutSeconds=1", "delete": "?dryRun=All", "create": "?dryRun=All",
             "update": "?dryRun=All", "patch": "?dryRun=All&fieldManager=test"}.get(verb, "")  # fmt: skip
    return f"{root}{inside}/{resource}{tail}{query}"


def ask(kube: Kube, account: str, right: Right) -> Answer:
    """The request that needs a right, as that account, without effect."""
    name = right.name or (right.namespace if right.resource == "namespaces" else None) or "anything"
    where = url(right.group, right.resource, right.namespace, name, right.verb)
    kind = Kube.MERGE if right.verb == "patch" else "application/json"
    version = f"{right.group}/v1" if right.group else "v1"
    body: Any = (
        {"apiVersion": version, "metadata": {"name": name}} if right.verb not in ("get", "list", "watch") else None
    )
    return kube.answer(METHODS[right.verb], where, body, kind, account=f"{NAMESPACE}:{account}")


def refused(answer: Answer) -> bool:
    return answer.status == 403 and "cannot" in answer.message


@pytest.mark.parametrize("account", ACCOUNTS)
def test_may_do_what_the_table_says(account: str, kube: Kube, platform: Release) -> None:
    """Not refused: whether the object is there or the body is whole is another question."""
    for right in sorted((r for r in TABLE if r.account == account), key=str):
        if right.verb == "watch":
            continue  # the same authoriser's answer as for list; the next test compares all verbs
        assert not refused(answer := ask(kube, account, right)), (right, answer.message)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_may_do_nothing_else(account: str, kube: Kube, platform: Release) -> None:
    """The authoriser's complete answer for every namespace is the table, beyond what every account has."""
    everybody = _rules(kube, "default:nobody", "default")
    for namespace in NAMESPACES:
        granted = {
            (right.group, right.resource, right.verb, right.name)
            for right in TABLE
            if right.account == account and right.namespace in (None, namespace)
        }
        if account == "train" and namespace == NAMESPACE:
            granted |= AUTOSCALER
        assert _rules(kube, f"{NAMESPACE}:{account}", namespace) - everybody == granted, namespace


AUTOSCALER = {("", "pods", verb, None) for verb in ("get", "list", "watch", "patch")} | {
    ("", "pods/resize", "patch", None),
    ("ray.io", "rayclusters", "get", None),
    ("ray.io", "rayclusters", "patch", None),
}
"""What the operator grants to the account of a head that scales itself. Only heads mount its token, see
`ray-lib.head`; on a shared cluster, code of a run that works in the head's container has these rights too."""

FORBIDDEN = (
    ("GET", "/api/v1/namespaces/{}/secrets"),
    ("GET", "/api/v1/namespaces/{}/secrets/ray-token"),
    ("POST", "/api/v1/namespaces/{}/pods"),
    ("POST", "/api/v1/namespaces/{}/pods/any/exec?command=sh"),
    ("POST", "/api/v1/namespaces/{}/serviceaccounts/train/token"),
    ("POST", "/apis/batch/v1/namespaces/{}/jobs"),
    ("POST", "/apis/ray.io/v1/namespaces/{}/rayjobs"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings"),
    ("DELETE", "/api/v1/namespaces/{}/configmaps/operations"),
    ("DELETE", "/api/v1/namespaces/{}"),
)
CLUSTER_WIDE = (
    ("GET", "/api/v1/secrets"),
    ("POST", "/api/v1/namespaces"),
    ("DELETE", "/api/v1/nodes/any"),
    ("PATCH", "/api/v1/nodes/any"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    ("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rayjobs.ray.io"),
    ("POST", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"),
    ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
    ("GET", "/metrics"),
)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_is_refused_what_would_hurt(account: str, kube: Kube, platform: Release) -> None:
    """Real requests, each refused. Who restores in a drill may create Ray objects there, and nobody elsewhere."""
    for namespace in NAMESPACES:
        for method, template in FORBIDDEN:
            if (account, namespace) == ("restore-reader", "haetsal-drill") and template.endswith(
                ("rayjobs", "operations")
            ):
                continue
            _refused(kube, account, method, template.format(namespace))
    for method, where in CLUSTER_WIDE:
        _refused(kube, account, method, where)


def test_nobody_borrows_another_account(kube: Kube, platform: Release) -> None:
    """Impersonation by an account is itself a right that none has: asked as that account, by review."""
    for account in ACCOUNTS:
        attributes = {
            "verb": "impersonate",
            "resource": "serviceaccounts",
            "name": "backup-writer",
            "namespace": NAMESPACE,
        }
        spec = {"user": f"system:serviceaccount:{NAMESPACE}:{account}", "resourceAttributes": attributes}
        review = kube.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
        assert review["status"]["allowed"] is False


def _refused(kube: Kube, account: str, method: str, where: str) -> None:
    body = None if method == "GET" else {"metadata": {"name": "any"}}
    kind = Kube.MERGE if method == "PATCH" else "application/json"
    answer = kube.answer(method, where, body, kind, account=f"{NAMESPACE}:{account}")
    assert answer.status == 403, (account, method, where, answer.status, answer.message)


def _rules(kube: Kube, account: str, namespace: str) -> set[tuple[str, str, str, str | None]]:
    body = {"spec": {"namespace": namespace}}
    where = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status = kube.answer("POST", where, body, account=account).body["status"]
    assert not status["incomplete"], status
    return {
        (group, resource, verb, name)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [None]
    }
