"""Every right is in the table with the call that needs it, and nothing is granted beyond the table."""

import re

import pytest
import yaml

from tests.charts.cases import AWS
from tests.charts.helm import CHARTS

TABLE = yaml.safe_load((CHARTS / "haetsal" / "rbac.yaml").read_text(encoding="utf-8"))
NAMESPACE = {"platform": "haetsal", "drill": "haetsal-drill", "operator": "ray-system", "cluster": None}
Right = tuple[str, str | None, str, str, str, str]


def rights_of_the_table() -> set[Right]:
    return {
        (entry["account"], NAMESPACE[entry["where"]], rule["group"], resource, verb, name)
        for entry in TABLE
        for rule in entry["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("names", ["*"])
    }


def rights_of(objects: list[dict]) -> set[Right]:
    """What accounts may, by way of bindings and roles, as the API server would resolve them."""
    roles = {
        (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects if "Role" in o["kind"]
    }
    found = set()
    for binding in (o for o in objects if o["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        namespace = binding["metadata"].get("namespace")
        role = roles[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "haetsal")
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            for name in rule.get("resourceNames", ["*"]):
                                found.add((subject["name"], namespace, group, resource, verb, name))
    return found


def test_rendered_rights_are_the_table(helm):
    assert rights_of(helm.render("haetsal", AWS)) == rights_of_the_table()


def test_without_a_drill_nobody_may_restore(helm):
    objects = helm.render("haetsal", AWS | {"operations": {"drillNamespace": ""}})
    assert rights_of(objects) == {right for right in rights_of_the_table() if right[1] != "haetsal-drill"}


def test_no_role_is_left_unbound(helm):
    objects = helm.render("haetsal", AWS)
    bound = {
        (o["roleRef"]["kind"], o["metadata"].get("namespace"), o["roleRef"]["name"]) for o in objects if "roleRef" in o
    }
    roles = {
        (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        for o in objects
        if o["kind"] in ("Role", "ClusterRole")
    }
    assert bound == roles


def test_every_right_says_what_it_is_for():
    for entry in TABLE:
        for rule in entry["rules"]:
            assert re.fullmatch(r"ops\.[a-z]+", rule["module"]) and len(rule["call"].split()) >= 3, rule


def test_nothing_dangerous_is_granted():
    for account, namespace, group, resource, verb, _ in rights_of_the_table():
        assert "*" not in (group, resource, verb)
        # Secrets, and what would let a pod become somebody else or leave its box.
        assert resource not in ("secrets", "pods/exec", "serviceaccounts/token", "roles", "rolebindings", "pods/attach")
        assert not (resource in ("pods", "jobs", "cronjobs", "deployments") and verb == "create")
        if namespace is None:
            assert verb in ("get", "list"), (account, resource, verb)


KINDS = {
    "rayclusters": "RayCluster", "rayjobs": "RayJob", "rayservices": "RayService", "configmaps": "ConfigMap",
    "leases": "Lease", "pods": "Pod", "events": "Event", "deployments": "Deployment", "cronjobs": "CronJob",
    "jobs": "Job", "nodes": "Node", "raycronjobs": "RayCronJob", "namespaces": "Namespace",
}  # fmt: skip


@pytest.mark.parametrize("module", sorted({rule["module"] for entry in TABLE for rule in entry["rules"]}))
def test_the_code_makes_the_call(module, repository):
    """Each granted kind is named in ops, once the module that needs it is there."""
    path = repository.joinpath(*module.split("."))
    if not path.with_suffix(".py").exists() and not path.is_dir():
        pytest.skip(f"{module} is not written yet; its rights stand on the table's word")
    code = "\n".join(file.read_text(encoding="utf-8") for file in (repository / "ops").rglob("*.py"))
    for entry in TABLE:
        for rule in (rule for rule in entry["rules"] if rule["module"] == module):
            for resource in rule["resources"]:
                assert re.search(rf"\b({KINDS[resource]}|{resource})\b", code), (module, resource)


def test_only_accounts_with_rights_get_a_token(helm):
    objects = helm.render("haetsal", AWS)
    assert not [o for o in objects if o["kind"] == "ServiceAccount" and o["automountServiceAccountToken"] is not False]
    jobs = [o for o in objects if o["kind"] == "CronJob"]
    with_token = {o["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] for o in jobs}
    assert with_token == {entry["account"] for entry in TABLE}
