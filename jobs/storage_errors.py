"""What a disk or S3 says when it refuses, said for people: which address, why, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from jobs.errors import EnvironmentNotReady, HaetsalError, IntegrityError, RemoteError, UsageError


class StorageError(EnvironmentNotReady):
    """A disk or bucket that cannot be used as it is: full, read-only, missing, or closed to us. Exit code 3."""


class AlreadyExists(IntegrityError):
    """A file that was to be created is there already, or another writer was first. Exit code 5."""


class NotFound(UsageError):
    """A file or directory that was to be read is not there. Exit code 2."""


_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict"}
"""S3's answers to a conditional PUT that lost: the object is there, or another such PUT is in flight."""


@contextmanager
def explained(address: str, doing: str, size_bytes: int | None = None, target: Path | None = None) -> Iterator[None]:
    """Turn what the file system or the S3 client raises within into one of the errors above, or RemoteError.

    `doing` is the verb of the message, `size_bytes` what a write needs, for the message about a full disk. `target` is
    where a copy from `address` goes, so that a disk that refuses it is named and not the source.
    """
    try:
        yield
    except HaetsalError:
        raise
    except OSError as error:
        raise _explain(error, address, doing, size_bytes, target) from error
    except ClientError as error:
        raise _explain_s3(error, address, doing) from error
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this machine a role"
        raise StorageError(f"{address}: cannot {doing}: no usable AWS credentials ({error}); {hint}") from error
    except BotoCoreError as error:
        hint = "check AWS_ENDPOINT_URL, AWS_REGION and the network"
        raise RemoteError(f"{address}: cannot {doing}: S3 does not answer ({error}); {hint}") from error


def _explain(error: OSError, address: str, doing: str, size_bytes: int | None, target: Path | None) -> HaetsalError:
    if isinstance(error.__cause__, ClientError):
        return _explain_s3(error.__cause__, address, doing)
    refused = f"{target or address}: cannot {'write' if target else doing}"
    match error.errno:
        case errno.EEXIST | errno.ENOTDIR:
            return StorageError(f"{refused}: a file is in the place of one of its folders; remove it")
        case errno.ENOSPC | errno.EDQUOT:
            needs = f" needs {size_bytes:,} bytes," if size_bytes is not None else ""
            return StorageError(
                f"{refused}: the disk is full;{needs} {_free_bytes(target or Path(address)):,} bytes are free. "
                "Make room, or use another disk"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = "let this user read it" if doing == "read" else "choose a folder that this user may use"
            return StorageError(f"{refused}: {os.strerror(error.errno).lower()}; {hint}")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{address}: no such file or directory")
    return StorageError(f"{refused}: {error.strerror or error}")


def _explain_s3(error: ClientError, address: str, doing: str) -> HaetsalError:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    bucket = address.removeprefix("s3://").partition("/")[0]
    if code in _TAKEN:
        return AlreadyExists(f"{address}: is there already")
    if code == "NoSuchBucket":
        return StorageError(f"{address}: cannot {doing}: there is no bucket {bucket}; create it or change storage.root")
    if code in _WRONG_CREDENTIALS:
        return StorageError(
            f"{address}: cannot {doing}: S3 refuses the AWS credentials ({code}); renew or replace them"
        )
    if status == 403:
        return StorageError(f"{address}: cannot {doing}: access denied; let these AWS credentials use bucket {bucket}")
    if status == 404:
        return NotFound(f"{address}: no such object")
    return RemoteError(
        f"{address}: cannot {doing}: S3 answered {status} {code}: {error.response['Error'].get('Message')}"
    )


def _free_bytes(path: Path) -> int:
    """Free space of the disk that holds `path`, whose own folder may not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
