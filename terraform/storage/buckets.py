"""A bucket as we want it: versioned, encrypted, TLS only, closed to the public, logged, with a lifecycle."""

from dataclasses import dataclass

from cdktn import TerraformStack
from cdktn_provider_aws.kms_key import KmsKey
from cdktn_provider_aws.s3_bucket import S3Bucket
from cdktn_provider_aws.s3_bucket_lifecycle_configuration import (
    S3BucketLifecycleConfiguration,
    S3BucketLifecycleConfigurationRule,
    S3BucketLifecycleConfigurationRuleAbortIncompleteMultipartUpload,
    S3BucketLifecycleConfigurationRuleExpiration,
    S3BucketLifecycleConfigurationRuleFilter,
    S3BucketLifecycleConfigurationRuleNoncurrentVersionExpiration,
)
from cdktn_provider_aws.s3_bucket_logging import S3BucketLoggingA
from cdktn_provider_aws.s3_bucket_object_lock_configuration import (
    S3BucketObjectLockConfigurationA,
    S3BucketObjectLockConfigurationRuleA,
    S3BucketObjectLockConfigurationRuleDefaultRetentionA,
)
from cdktn_provider_aws.s3_bucket_ownership_controls import S3BucketOwnershipControls, S3BucketOwnershipControlsRule
from cdktn_provider_aws.s3_bucket_policy import S3BucketPolicy
from cdktn_provider_aws.s3_bucket_public_access_block import S3BucketPublicAccessBlock
from cdktn_provider_aws.s3_bucket_server_side_encryption_configuration import (
    S3BucketServerSideEncryptionConfigurationA,
    S3BucketServerSideEncryptionConfigurationRuleA,
    S3BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultA,
)
from cdktn_provider_aws.s3_bucket_versioning import S3BucketVersioningA, S3BucketVersioningVersioningConfiguration

from terraform.policy import Statement, policy
from terraform.settings import BackupLock, Environment


@dataclass(frozen=True)
class BucketSpec:
    """How one bucket differs from the others.

    `noncurrent_days`: how long an overwritten or deleted version is kept. `region`: none is the provider's own.
    """

    purpose: str
    noncurrent_days: int
    lock: BackupLock | None = None
    expire_days: int | None = None
    region: str | None = None


@dataclass(frozen=True)
class Bucket:
    """A bucket and what makes it usable; `versioning` must exist before replication is configured."""

    spec: BucketSpec
    name: str
    resource: S3Bucket
    versioning: S3BucketVersioningA


def add_log_bucket(stack: TerraformStack, environment: Environment, spec: BucketSpec) -> Bucket:
    """The bucket that receives the other buckets' access logs.

    It is encrypted with S3's own keys: server access logging cannot write to a bucket with a KMS key
    (S3 user guide, "Enabling Amazon S3 server access logging", permissions).
    """
    name = environment.bucket_name(spec.purpose)
    deliver = Statement(
        "AccessLogsOfOwnBuckets",
        ("s3:PutObject",),
        (f"arn:aws:s3:::{name}/*",),
        conditions={"StringEquals": {"aws:SourceAccount": environment.account_id}},
        principal={"Service": "logging.s3.amazonaws.com"},
    )
    return _closed_bucket(stack, name, spec, None, deliver)


def add_bucket(stack: TerraformStack, environment: Environment, spec: BucketSpec, key: KmsKey, logs: Bucket) -> Bucket:
    """A bucket encrypted with `key` whose accesses are logged to `logs`."""
    bucket = _closed_bucket(stack, environment.bucket_name(spec.purpose), spec, key)
    S3BucketLoggingA(
        stack,
        f"{spec.purpose}-logging",
        bucket=bucket.resource.id,
        target_bucket=logs.resource.id,
        target_prefix=f"{spec.purpose}/",
        region=spec.region,
    )
    return bucket


def _closed_bucket(
    stack: TerraformStack, name: str, spec: BucketSpec, key: KmsKey | None, *statements: Statement
) -> Bucket:
    id_ = spec.purpose
    bucket = S3Bucket(
        stack,
        id_,
        bucket=name,
        object_lock_enabled=True if spec.lock else None,
        tags={"Name": name},
        region=spec.region,
    )
    block = S3BucketPublicAccessBlock(
        stack,
        f"{id_}-public-access",
        bucket=bucket.id,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        region=spec.region,
    )
    S3BucketOwnershipControls(
        stack,
        f"{id_}-ownership",
        bucket=bucket.id,
        rule=S3BucketOwnershipControlsRule(object_ownership="BucketOwnerEnforced"),
        region=spec.region,
    )
    S3BucketPolicy(
        stack,
        f"{id_}-policy",
        bucket=bucket.id,
        policy=policy((_tls_only(name), *statements)),
        depends_on=[block],  # S3 refuses the two calls at once on a new bucket
        region=spec.region,
    )
    _encrypt(stack, bucket, spec, key)
    versioning = S3BucketVersioningA(
        stack,
        f"{id_}-versioning",
        bucket=bucket.id,
        versioning_configuration=S3BucketVersioningVersioningConfiguration(status="Enabled"),
        region=spec.region,
    )
    _lifecycle(stack, bucket, spec, versioning)
    if spec.lock:
        retention = S3BucketObjectLockConfigurationRuleDefaultRetentionA(mode=spec.lock.mode, days=spec.lock.days)
        S3BucketObjectLockConfigurationA(
            stack,
            f"{id_}-lock",
            bucket=bucket.id,
            rule=S3BucketObjectLockConfigurationRuleA(default_retention=retention),
            depends_on=[versioning],
            region=spec.region,
        )
    return Bucket(spec, name, bucket, versioning)


def _tls_only(name: str) -> Statement:
    return Statement(
        "TlsOnly",
        ("s3:*",),
        (f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"),
        conditions={"Bool": {"aws:SecureTransport": "false"}},
        principal="*",
        effect="Deny",
    )


def _encrypt(stack: TerraformStack, bucket: S3Bucket, spec: BucketSpec, key: KmsKey | None) -> None:
    default = S3BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultA(
        sse_algorithm="aws:kms" if key else "AES256", kms_master_key_id=key.arn if key else None
    )
    S3BucketServerSideEncryptionConfigurationA(
        stack,
        f"{spec.purpose}-encryption",
        bucket=bucket.id,
        # A bucket key asks KMS once per bucket and hour, not once per object: training reads millions.
        rule=[
            S3BucketServerSideEncryptionConfigurationRuleA(
                apply_server_side_encryption_by_default=default, bucket_key_enabled=key is not None
            )
        ],
        region=spec.region,
    )


def _lifecycle(stack: TerraformStack, bucket: S3Bucket, spec: BucketSpec, versioning: S3BucketVersioningA) -> None:
    everything = [S3BucketLifecycleConfigurationRuleFilter(prefix="")]
    abort = S3BucketLifecycleConfigurationRuleAbortIncompleteMultipartUpload(days_after_initiation=7)
    old = S3BucketLifecycleConfigurationRuleNoncurrentVersionExpiration(noncurrent_days=spec.noncurrent_days)
    rules = [
        S3BucketLifecycleConfigurationRule(
            id="abort-incomplete-uploads",
            status="Enabled",
            filter=everything,
            abort_incomplete_multipart_upload=[abort],
        ),
        S3BucketLifecycleConfigurationRule(
            id="expire-old-versions", status="Enabled", filter=everything, noncurrent_version_expiration=[old]
        ),
    ]
    if spec.expire_days:
        expire = [S3BucketLifecycleConfigurationRuleExpiration(days=spec.expire_days)]
        rules.append(
            S3BucketLifecycleConfigurationRule(id="expire", status="Enabled", filter=everything, expiration=expire)
        )
    S3BucketLifecycleConfiguration(
        stack,
        f"{spec.purpose}-lifecycle",
        bucket=bucket.id,
        rule=rules,
        depends_on=[versioning],
        region=spec.region,
    )
