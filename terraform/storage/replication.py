"""Copy every version of a bucket to a second region, with a role that may do that and nothing else."""

from cdktn import TerraformStack
from cdktn_provider_aws.iam_role import IamRole
from cdktn_provider_aws.iam_role_policy import IamRolePolicy
from cdktn_provider_aws.kms_key import KmsKey
from cdktn_provider_aws.s3_bucket_replication_configuration import (
    S3BucketReplicationConfigurationA,
    S3BucketReplicationConfigurationRule,
    S3BucketReplicationConfigurationRuleDeleteMarkerReplication,
    S3BucketReplicationConfigurationRuleDestination,
    S3BucketReplicationConfigurationRuleDestinationEncryptionConfiguration,
    S3BucketReplicationConfigurationRuleFilter,
    S3BucketReplicationConfigurationRuleSourceSelectionCriteria,
    S3BucketReplicationConfigurationRuleSourceSelectionCriteriaSseKmsEncryptedObjects,
)

from terraform.policy import Statement, policy, trust
from terraform.settings import Environment
from terraform.storage.buckets import Bucket


def replicate(
    stack: TerraformStack,
    environment: Environment,
    source: Bucket,
    target: Bucket,
    source_key: KmsKey,
    target_key: KmsKey,
) -> None:
    """Replicate `source` to `target`, deletions as markers: a deleted object stays readable in both for a while."""
    purpose = source.spec.purpose
    name = f"{environment.cluster_name}-replicate-{purpose}"
    account = {"StringEquals": {"aws:SourceAccount": environment.account_id}}
    role = IamRole(
        stack,
        f"{purpose}-replication-role",
        name=name,
        description=f"S3 copies the {purpose} bucket to {environment.storage.replica_region}",
        assume_role_policy=trust("s3.amazonaws.com", conditions=account),
    )
    grant = IamRolePolicy(
        stack,
        f"{purpose}-replication-policy",
        name=name,
        role=role.id,
        policy=policy(_statements(source, target, source_key, target_key)),
    )
    encrypted = S3BucketReplicationConfigurationRuleSourceSelectionCriteriaSseKmsEncryptedObjects(status="Enabled")
    rule = S3BucketReplicationConfigurationRule(
        id="everything",
        status="Enabled",
        priority=1,
        filter=S3BucketReplicationConfigurationRuleFilter(prefix=""),
        delete_marker_replication=S3BucketReplicationConfigurationRuleDeleteMarkerReplication(status="Enabled"),
        source_selection_criteria=S3BucketReplicationConfigurationRuleSourceSelectionCriteria(
            sse_kms_encrypted_objects=encrypted
        ),
        destination=S3BucketReplicationConfigurationRuleDestination(
            bucket=target.resource.arn,
            encryption_configuration=S3BucketReplicationConfigurationRuleDestinationEncryptionConfiguration(
                replica_kms_key_id=target_key.arn
            ),
        ),
    )
    S3BucketReplicationConfigurationA(
        stack,
        f"{purpose}-replication",
        bucket=source.resource.id,
        role=role.arn,
        rule=[rule],
        depends_on=[source.versioning, target.versioning, grant],
    )


def _statements(source: Bucket, target: Bucket, source_key: KmsKey, target_key: KmsKey) -> tuple[Statement, ...]:
    """Source: S3 user guide, "Setting up permissions for live replication", with KMS and Object Lock."""
    source_arn, target_arn = source.resource.arn, target.resource.arn
    return (
        Statement("ReadConfiguration", ("s3:GetReplicationConfiguration", "s3:ListBucket"), (source_arn,)),
        Statement(
            "ReadVersions",
            (
                "s3:GetObjectVersionForReplication",
                "s3:GetObjectVersionAcl",
                "s3:GetObjectVersionTagging",
                "s3:GetObjectRetention",
                "s3:GetObjectLegalHold",
            ),
            (f"{source_arn}/*",),
        ),
        Statement(
            "WriteCopies", ("s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"), (f"{target_arn}/*",)
        ),
        Statement("DecryptSource", ("kms:Decrypt",), (source_key.arn,)),
        Statement("EncryptCopies", ("kms:GenerateDataKey", "kms:Encrypt"), (target_key.arn,)),
    )
