"""The storage stack: one key, four buckets and, where asked for, their copies in a second region."""

from dataclasses import dataclass, replace

from cdktn import App, TerraformOutput, TerraformStack
from cdktn_provider_aws.kms_alias import KmsAlias
from cdktn_provider_aws.kms_key import KmsKey

from terraform.backend import aws_provider, use_s3_state
from terraform.policy import key_policy
from terraform.settings import Environment
from terraform.storage.buckets import Bucket, BucketSpec, add_bucket, add_log_bucket
from terraform.storage.replication import replicate


@dataclass(frozen=True)
class Buckets:
    """The buckets of one region and the key of all but the logs."""

    key: KmsKey
    data: Bucket
    artifacts: Bucket
    backups: Bucket
    logs: Bucket


@dataclass(frozen=True)
class Storage:
    """What other stacks use of this one."""

    stack: TerraformStack
    buckets: Buckets


def storage_stack(app: App, environment: Environment) -> Storage:
    """Add the storage stack of `environment` to `app`."""
    stack = TerraformStack(app, "storage")
    use_s3_state(stack, environment)
    aws_provider(stack, environment)
    buckets = _buckets(stack, environment)
    if environment.storage.replica_region:
        replicas = _buckets(stack, environment, environment.storage.replica_region)
        for source, target in (
            (buckets.data, replicas.data),
            (buckets.artifacts, replicas.artifacts),
            (buckets.backups, replicas.backups),
        ):
            replicate(stack, environment, source, target, buckets.key, replicas.key)
    for bucket in (buckets.data, buckets.artifacts, buckets.backups, buckets.logs):
        purpose = bucket.spec.purpose
        TerraformOutput(stack, f"{purpose}_bucket", value=bucket.name, description=f"name of the {purpose} bucket")
    return Storage(stack, buckets)


def _buckets(stack: TerraformStack, environment: Environment, replica_region: str | None = None) -> Buckets:
    suffix = "-replica" if replica_region else ""
    settings = environment.storage
    key = KmsKey(
        stack,
        f"storage-key{suffix}",
        description=f"Buckets of {environment.cluster_name}",
        enable_key_rotation=True,
        deletion_window_in_days=30,
        policy=key_policy(environment.account_id),
        region=replica_region,
    )
    KmsAlias(
        stack,
        f"storage-key-alias{suffix}",
        name=f"alias/{environment.cluster_name}-storage",
        target_key_id=key.key_id,
        region=replica_region,
    )
    plain = BucketSpec(f"data{suffix}", settings.noncurrent_days, region=replica_region)
    # A version under lock cannot expire, so old versions of backups stay at least as long as the lock.
    locked_days = max(settings.noncurrent_days, settings.backup_lock.days)
    locked = replace(plain, purpose=f"backups{suffix}", noncurrent_days=locked_days, lock=settings.backup_lock)
    logs = add_log_bucket(stack, environment, replace(plain, purpose=f"logs{suffix}", expire_days=settings.log_days))
    return Buckets(
        key=key,
        data=add_bucket(stack, environment, plain, key, logs),
        artifacts=add_bucket(stack, environment, replace(plain, purpose=f"artifacts{suffix}"), key, logs),
        backups=add_bucket(stack, environment, locked, key, logs),
        logs=logs,
    )
