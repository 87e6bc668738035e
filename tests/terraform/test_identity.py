"""Every role's statements: what it may do, and above all what it may not."""

import json

import pytest

from terraform.policy import Statement
from tests.terraform.stacks import statements

DATA, ARTIFACTS, BACKUPS = "data", "artifacts", "backups"

# Role to (action, where) for everything on S3; the whole table is here so that a widened role fails a test.
READ, PUT, DELETE = "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
ABORT, PARTS = "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"
WRITE = {READ, PUT, DELETE, ABORT, PARTS}
EXPECTED_OBJECT_ACCESS = {
    "train": {
        ("data/datasets/*", READ),
        ("artifacts/inputs/*", READ),
        *((f"artifacts/{p}/*", a) for p in ("runs", "mlflow") for a in WRITE),
    },
    "preprocess": {
        ("data/raw/*", READ),
        ("artifacts/inputs/*", READ),
        *((place, a) for place in ("data/datasets/*", "artifacts/runs/*") for a in WRITE),
    },
    "serve": {("artifacts/runs/*", READ), ("artifacts/mlflow/*", READ)},
    "mlflow": {("artifacts/mlflow/*", a) for a in WRITE},
    "backup-writer": {
        ("backups/*", PUT),
        ("backups/*", ABORT),
        ("artifacts/runs/*", READ),
        ("artifacts/mlflow/*", READ),
    },
    "restore-reader": {("backups/*", READ), ("backups/*", "s3:GetObjectVersion")},
    "retention-deleter": {("backups/*", a) for a in (READ, "s3:GetObjectRetention", DELETE, "s3:DeleteObjectVersion")},
    "health-checker": {("backups/*", READ), ("backups/audit/*", PUT)},
    "cluster-autoscaler": set(),
}
DATABASE_READERS = {"mlflow", "backup-writer", "restore-reader"}
SERVICE_ACCOUNTS = {
    **{role: ("haetsal", role) for role in EXPECTED_OBJECT_ACCESS},
    "mlflow": ("mlflow", "mlflow"),
    "cluster-autoscaler": ("kube-system", "cluster-autoscaler"),
}


def role_statements(stack, role: str) -> list[dict]:
    return statements(stack.all("aws_iam_role_policy")[f"{role}-policy"]["policy"])


def place(resource: str) -> str:
    """'<bucket>' or '<bucket>/<prefix>' of an S3 ARN that came from the storage stack."""
    for bucket in (DATA, ARTIFACTS, BACKUPS):
        output = f"cross-stack-output-aws_s3_bucket{bucket}arn}}"
        if output in resource:
            return bucket + resource.split(output)[1]
    return resource


@pytest.mark.parametrize("role", EXPECTED_OBJECT_ACCESS)
def test_object_access_is_exactly_what_the_workload_needs(role, stacks):
    for name in ("dev", "prod"):
        access = {
            (place(resource), action)
            for s in role_statements(stacks[name, "platform"], role)
            for resource in s["Resource"]
            for action in s["Action"]
            if action.startswith("s3:") and place(resource).count("/")
        }
        assert access == EXPECTED_OBJECT_ACCESS[role]


def test_the_backup_writer_sees_names_but_can_neither_read_nor_delete_backups(stacks):
    for statement in role_statements(stacks["prod", "platform"], "backup-writer"):
        if any(place(r).startswith(BACKUPS) for r in statement["Resource"]):
            assert set(statement["Action"]) in ({PUT, ABORT}, {"s3:ListBucket", "s3:GetBucketLocation"})


@pytest.mark.parametrize("role", EXPECTED_OBJECT_ACCESS)
def test_no_action_is_a_wildcard_and_no_resource_is_everything(role, stacks):
    for statement in role_statements(stacks["prod", "platform"], role):
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
        if "*" in statement["Resource"]:
            assert role == "cluster-autoscaler"
            assert all(":Describe" in a or ":Get" in a for a in statement["Action"])


@pytest.mark.parametrize("role", EXPECTED_OBJECT_ACCESS)
def test_keys_are_usable_only_through_the_service_that_encrypts(role, stacks):
    for statement in role_statements(stacks["prod", "platform"], role):
        if any(action.startswith("kms:") for action in statement["Action"]):
            (via,) = statement["Condition"].values()
            assert set(via) == {"kms:ViaService"}
            assert len(statement["Resource"]) == 1


def test_only_database_users_read_its_secret_and_only_where_there_is_one(stacks):
    for name, readers in (("prod", DATABASE_READERS), ("lab", DATABASE_READERS), ("dev", set())):
        found = set()
        for role in EXPECTED_OBJECT_ACCESS:
            for statement in role_statements(stacks[name, "platform"], role):
                if "secretsmanager:GetSecretValue" in statement["Action"]:
                    assert statement["Resource"] == ["${aws_db_instance.database.master_user_secret[0].secret_arn}"]
                    found.add(role)
        assert found == readers


def test_the_autoscaler_resizes_only_its_own_clusters_groups(stacks):
    (resize,) = [
        s for s in role_statements(stacks["dev", "platform"], "cluster-autoscaler") if s["Sid"] == "ResizeOwnGroups"
    ]
    assert resize["Condition"] == {"StringEquals": {"aws:ResourceTag/k8s.io/cluster-autoscaler/haetsal-dev": "owned"}}


def test_each_workload_has_one_pod_identity(stacks):
    for name in ("dev", "prod", "lab"):
        platform = stacks[name, "platform"]
        identities = platform.all("aws_eks_pod_identity_association")
        assert {
            key.removesuffix("-identity"): (i["namespace"], i["service_account"]) for key, i in identities.items()
        } == SERVICE_ACCOUNTS
        for key, identity in identities.items():
            assert identity["role_arn"] == f"${{aws_iam_role.{key.removesuffix('-identity')}-role.arn}}"


def test_roles_trust_exactly_one_service(stacks):
    services = {
        "pods.eks.amazonaws.com": {"sts:AssumeRole", "sts:TagSession"},
        "eks.amazonaws.com": {"sts:AssumeRole"},
        "ec2.amazonaws.com": {"sts:AssumeRole"},
        "vpc-flow-logs.amazonaws.com": {"sts:AssumeRole"},
        "monitoring.rds.amazonaws.com": {"sts:AssumeRole"},
        "s3.amazonaws.com": {"sts:AssumeRole"},
    }
    for stack in stacks.values():
        for role in stack.all("aws_iam_role").values():
            (statement,) = json.loads(role["assume_role_policy"])["Statement"]
            assert set(statement["Action"]) == services[statement["Principal"]["Service"]]


def test_add_ons_have_their_own_roles_and_nodes_have_neither(stacks):
    platform = stacks["prod", "platform"]
    for addon, role in (("vpc-cni", "vpc-cni-role"), ("aws-ebs-csi-driver", "ebs-csi-role")):
        (association,) = platform.all("aws_eks_addon")[addon]["pod_identity_association"]
        assert association["role_arn"] == f"${{aws_iam_role.{role}.arn}}"
    node = [
        a["policy_arn"].split("/")[-1]
        for a in platform.all("aws_iam_role_policy_attachment").values()
        if "node-role" in a["role"]
    ]
    assert sorted(node) == [
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonEKSWorkerNodePolicy",
        "AmazonSSMManagedInstanceCore",
    ]


def test_key_policies_admit_the_account_and_named_services(stacks):
    for stack in stacks.values():
        for key in stack.all("aws_kms_key").values():
            assert key["enable_key_rotation"] is True
            for statement in statements(key["policy"]):
                principal = statement["Principal"]
                assert principal.get("AWS", "").endswith(":root") or statement["Condition"]


def test_a_wildcard_resource_without_a_reason_does_not_synthesise():
    with pytest.raises(ValueError, match="Everything: resource \\* needs a wildcard_reason"):
        Statement("Everything", ("s3:*",), ("*",))
