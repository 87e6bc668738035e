"""Who owns a bucket, and how to empty one of every version of every object."""

from itertools import chain
from typing import Literal

import boto3
from botocore.exceptions import ClientError

from jobs.errors import RemoteError


def bucket_owner(session: boto3.Session, name: str) -> Literal["us", "another account", "nobody"]:
    """Whose the bucket name is. Raises ClientError for anything but S3's two ways to say no."""
    try:
        session.client("s3").head_bucket(Bucket=name)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            return "nobody"
        if status == 403:
            return "another account"
        raise
    return "us"


def empty_bucket(session: boto3.Session, name: str) -> int:
    """Delete all versions and markers; governance locks are bypassed, as the caller has asked for it in writing.

    Returns how many were deleted; a bucket that is not there has 0. Raises RemoteError if some are held by a lock.
    """
    if bucket_owner(session, name) != "us":
        return 0
    s3 = session.client("s3")
    deleted, held = 0, []
    rows: list[dict[str, str]] = []
    for page in chain(s3.get_paginator("list_object_versions").paginate(Bucket=name), [{}]):
        # One page behind: the next page is asked for from a version that must still be there.
        if rows:
            answer = s3.delete_objects(
                Bucket=name, Delete={"Objects": rows, "Quiet": True}, BypassGovernanceRetention=True
            )
            errors = answer.get("Errors", [])
            held += errors
            deleted += len(rows) - len(errors)
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        rows = [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in found]
    if held:
        first = held[0]
        raise RemoteError(
            f"{name}: {deleted} versions deleted, {len(held)} are held by a lock, first {first['Key']} "
            f"({first['Message']}); run again when the lock has ended (storage.backup_lock)"
        )
    return deleted
