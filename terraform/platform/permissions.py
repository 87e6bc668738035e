"""What each workload may do: pure functions from the resources' ARNs to policy statements, one workload each.

Bucket layout: data holds raw/ and datasets/; artifacts holds runs/ (run directories),
inputs/ (what a submission brought along) and mlflow/ (MLflow's own files).
"""

from dataclasses import dataclass

from terraform.policy import Statement

READ_WRITE = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


@dataclass(frozen=True)
class Targets:
    """ARNs that policies are scoped to. `database_secret` is none where MLflow keeps SQLite."""

    cluster_name: str
    cluster_arn: str
    region: str
    account_id: str
    data: str
    artifacts: str
    backups: str
    storage_key: str
    platform_key: str
    database_secret: str | None


@dataclass(frozen=True)
class Workload:
    """A service account in the cluster and the statements of its role."""

    namespace: str
    service_account: str
    purpose: str
    statements: tuple[Statement, ...]


def workloads(targets: Targets) -> dict[str, Workload]:
    """Role name to workload. Namespaces and service accounts are the ones the charts make."""
    ours = "haetsal"
    return {
        "train": Workload(ours, "train", "Training, tuning, evaluation and pipelines", _train(targets)),
        "preprocess": Workload(ours, "preprocess", "Corpus preparation", _preprocess(targets)),
        "serve": Workload(ours, "serve", "Inference engines load models", _serve(targets)),
        "mlflow": Workload("mlflow", "mlflow", "The tracking server", _mlflow(targets)),
        "backup-writer": Workload(
            ours, "backup-writer", "Backups are put and listed, never read or deleted", _backup(targets)
        ),
        "restore-reader": Workload(ours, "restore-reader", "Restores and drills read backups", _restore(targets)),
        "retention-deleter": Workload(ours, "retention-deleter", "Old backups are deleted", _retention(targets)),
        "health-checker": Workload(ours, "health-checker", "Health checks observe, repair and audit", _health(targets)),
        "cluster-autoscaler": Workload(
            "kube-system", "cluster-autoscaler", "Node groups grow and shrink", _autoscaler(targets)
        ),
    }


def _list(sid: str, bucket: str, *prefixes: str) -> Statement:
    """Listing, limited to keys below `prefixes`."""
    conditions = {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}} if prefixes else {}
    return Statement(sid, ("s3:ListBucket", "s3:GetBucketLocation"), (bucket,), conditions=conditions)


def _use_key(targets: Targets, *actions: str) -> Statement:
    """The buckets' key, only by way of S3."""
    through_s3 = {"StringEquals": {"kms:ViaService": f"s3.{targets.region}.amazonaws.com"}}
    return Statement("UseStorageKey", actions, (targets.storage_key,), conditions=through_s3)


def _read_database_secret(targets: Targets) -> tuple[Statement, ...]:
    if targets.database_secret is None:
        return ()
    through = {"StringEquals": {"kms:ViaService": f"secretsmanager.{targets.region}.amazonaws.com"}}
    return (
        Statement("ReadDatabaseSecret", ("secretsmanager:GetSecretValue",), (targets.database_secret,)),
        Statement("DecryptDatabaseSecret", ("kms:Decrypt",), (targets.platform_key,), conditions=through),
    )


def _train(targets: Targets) -> tuple[Statement, ...]:
    return (
        _list("ListDatasets", targets.data, "datasets/"),
        Statement("ReadDatasets", ("s3:GetObject",), (f"{targets.data}/datasets/*",)),
        _list("ListRuns", targets.artifacts, "runs/", "inputs/", "mlflow/"),
        Statement("ReadInputs", ("s3:GetObject",), (f"{targets.artifacts}/inputs/*",)),
        Statement("WriteRuns", READ_WRITE, (f"{targets.artifacts}/runs/*", f"{targets.artifacts}/mlflow/*")),
        _use_key(targets, "kms:Decrypt", "kms:GenerateDataKey"),
    )


def _preprocess(targets: Targets) -> tuple[Statement, ...]:
    return (
        _list("ListCorpora", targets.data, "raw/", "datasets/"),
        Statement("ReadCorpora", ("s3:GetObject",), (f"{targets.data}/raw/*",)),
        Statement("WriteDatasets", READ_WRITE, (f"{targets.data}/datasets/*",)),
        _list("ListRuns", targets.artifacts, "runs/", "inputs/"),
        Statement("ReadInputs", ("s3:GetObject",), (f"{targets.artifacts}/inputs/*",)),
        Statement("WriteRuns", READ_WRITE, (f"{targets.artifacts}/runs/*",)),
        _use_key(targets, "kms:Decrypt", "kms:GenerateDataKey"),
    )


def _serve(targets: Targets) -> tuple[Statement, ...]:
    return (
        _list("ListModels", targets.artifacts, "runs/", "mlflow/"),
        Statement("ReadModels", ("s3:GetObject",), (f"{targets.artifacts}/runs/*", f"{targets.artifacts}/mlflow/*")),
        _use_key(targets, "kms:Decrypt"),
    )


def _mlflow(targets: Targets) -> tuple[Statement, ...]:
    return (
        _list("ListArtifacts", targets.artifacts, "mlflow/"),
        Statement("WriteArtifacts", READ_WRITE, (f"{targets.artifacts}/mlflow/*",)),
        _use_key(targets, "kms:Decrypt", "kms:GenerateDataKey"),
        *_read_database_secret(targets),
    )


def _backup(targets: Targets) -> tuple[Statement, ...]:
    return (
        Statement("PutBackups", ("s3:PutObject", "s3:AbortMultipartUpload"), (f"{targets.backups}/*",)),
        # Names alone say what is stored already: an object's name is the hash of its content.
        _list("ListBackups", targets.backups),
        _list("IndexArtifacts", targets.artifacts, "runs/", "mlflow/"),
        Statement("HashArtifacts", ("s3:GetObject",), (f"{targets.artifacts}/runs/*", f"{targets.artifacts}/mlflow/*")),
        # A multipart upload to an encrypted bucket decrypts its own parts when it is completed.
        _use_key(targets, "kms:Decrypt", "kms:GenerateDataKey"),
        *_read_database_secret(targets),
    )


def _restore(targets: Targets) -> tuple[Statement, ...]:
    return (
        _list("ListBackups", targets.backups),
        Statement("ReadBackups", ("s3:GetObject", "s3:GetObjectVersion"), (f"{targets.backups}/*",)),
        _use_key(targets, "kms:Decrypt"),
        *_read_database_secret(targets),
    )


def _retention(targets: Targets) -> tuple[Statement, ...]:
    return (
        Statement(
            "ListBackups", ("s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation"), (targets.backups,)
        ),
        Statement(
            "DeleteBackups",
            ("s3:GetObject", "s3:GetObjectRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"),
            (f"{targets.backups}/*",),
        ),
        _use_key(targets, "kms:Decrypt"),
    )


def _health(targets: Targets) -> tuple[Statement, ...]:
    return (
        _list("SeeBackups", targets.backups),
        # A cluster is brought back only from a backup that was verified as a whole.
        Statement("ReadBackups", ("s3:GetObject",), (f"{targets.backups}/*",)),
        Statement("WriteAudit", ("s3:PutObject",), (f"{targets.backups}/audit/*",)),
        _list("SeeArtifacts", targets.artifacts),
        _use_key(targets, "kms:Decrypt", "kms:GenerateDataKey"),
    )


def _autoscaler(targets: Targets) -> tuple[Statement, ...]:
    """Source: cluster-autoscaler's AWS README, "Full Cluster Autoscaler Features Policy", narrowed by tag."""
    own = {"StringEquals": {f"aws:ResourceTag/k8s.io/cluster-autoscaler/{targets.cluster_name}": "owned"}}
    groups = f"arn:aws:autoscaling:{targets.region}:{targets.account_id}:autoScalingGroup:*:autoScalingGroupName/*"
    node_groups = f"arn:aws:eks:{targets.region}:{targets.account_id}:nodegroup/{targets.cluster_name}/*/*"
    return (
        Statement(
            "SeeCapacity",
            (
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeAutoScalingInstances",
                "autoscaling:DescribeLaunchConfigurations",
                "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeTags",
                "ec2:DescribeImages",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:GetInstanceTypesFromInstanceRequirements",
            ),
            ("*",),
            wildcard_reason="these Describe calls take no resource in IAM",
        ),
        Statement("SeeNodeGroups", ("eks:DescribeNodegroup",), (node_groups,)),
        Statement(
            "ResizeOwnGroups",
            ("autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"),
            (groups,),
            conditions=own,
        ),
    )
