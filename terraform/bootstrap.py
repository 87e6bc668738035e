"""Make the bucket that holds Terraform's state: the one thing that cannot be in a state itself."""

import json
from typing import Any

import boto3
from botocore.exceptions import ClientError

from jobs.errors import EnvironmentNotReady, RemoteError
from terraform.aws import check_account
from terraform.settings import Environment
from terraform.state import state_bucket


def bootstrap(environment: Environment, session: boto3.Session) -> bool:
    """Make the state bucket, or bring an existing one into shape. True if it was made. Raises RemoteError."""
    check_account(environment, session)
    s3, name = session.client("s3"), state_bucket(environment)
    try:
        made = _create(s3, name, environment)
        s3.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}, "BucketKeyEnabled": True}
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
        s3.put_bucket_policy(Bucket=name, Policy=_tls_only(name))
        s3.put_bucket_tagging(
            Bucket=name, Tagging={"TagSet": [{"Key": k, "Value": v} for k, v in environment.tags.items()]}
        )
    except ClientError as error:
        raise RemoteError(f"state bucket {name}: {error}") from None
    return made


def _create(s3: Any, name: str, environment: Environment) -> bool:
    try:
        if environment.region == "us-east-1":  # the one region that S3 refuses to be told by name
            s3.create_bucket(Bucket=name)
        else:
            s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": environment.region})
    except s3.exceptions.BucketAlreadyOwnedByYou:
        return False
    except s3.exceptions.BucketAlreadyExists:
        raise EnvironmentNotReady(f"bucket {name} belongs to another account; choose another `project`") from None
    return True


def _tls_only(name: str) -> str:
    arn = f"arn:aws:s3:::{name}"
    statement = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
