"""Where backups lie: named, write-once blobs in an S3 bucket or a folder."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Protocol

import boto3
from botocore.config import Config

from jobs.errors import UsageError
from jobs.storage import NotFound, Storage
from jobs.storage_errors import explained
from ops.settings import StoreSettings


@dataclass(frozen=True)
class Stored:
    """One blob as a listing shows it. `stored_at` is the store's own clock."""

    name: str
    size: int
    stored_at: datetime


class Objects(Protocol):
    """Blobs by name below one root.

    All methods raise StorageError when the store cannot be used, RemoteError when it does not answer after retries, and
    NotFound for a name that is not there.
    """

    root: str

    def put(self, name: str, data: bytes) -> None:
        """Store `data`, whole or not at all."""

    def create(self, name: str, data: bytes) -> None:
        """Store `data` if the name is free; raises AlreadyExists otherwise."""

    def get(self, name: str) -> bytes:
        """The content."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """Everything whose name starts with `prefix`, a folder."""

    def delete(self, name: str) -> None:
        """Delete; fine if it is not there."""

    def now(self) -> datetime:
        """The store's clock, the one that `stored_at` was read from."""


class S3Objects:
    """In a bucket. Every blob is one PUT of at most a few MiB: there are no multipart uploads that could be left over.

    Deleting in a versioned bucket hides a name; the version goes when its Object Lock and the lifecycle rule let it.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self.bucket, _, prefix = settings.root.removeprefix("s3://").strip("/").partition("/")
        self.root = settings.root.rstrip("/")
        if not self.bucket:
            raise UsageError(f"store.root {settings.root}: names no bucket; use s3://bucket/prefix")
        self.prefix = f"{prefix}/" if prefix else ""
        config = Config(
            connect_timeout=settings.request_timeout_s,
            read_timeout=settings.request_timeout_s,
            max_pool_connections=settings.threads,
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
        )
        with explained(self.root, "open"):
            self.client = boto3.client("s3", config=config)

    def put(self, name: str, data: bytes) -> None:
        with explained(f"{self.root}/{name}", "write", len(data)):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=data, **_checksum(data))

    def create(self, name: str, data: bytes) -> None:
        with explained(f"{self.root}/{name}", "write", len(data)):
            self.client.put_object(
                Bucket=self.bucket, Key=self.prefix + name, Body=data, IfNoneMatch="*", **_checksum(data)
            )

    def get(self, name: str) -> bytes:
        with explained(f"{self.root}/{name}", "read"):
            data: bytes = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
            return data

    def list(self, prefix: str) -> Iterator[Stored]:
        with explained(f"{self.root}/{prefix}", "list"):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for row in page.get("Contents", []):
                    yield Stored(row["Key"].removeprefix(self.prefix), row["Size"], row["LastModified"])

    def delete(self, name: str) -> None:
        with explained(f"{self.root}/{name}", "delete"):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def now(self) -> datetime:
        with explained(self.root, "look up"):
            answer = self.client.head_bucket(Bucket=self.bucket)
        said = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return datetime.strptime(said, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


class FolderObjects:
    """In a folder, for a cluster without S3: a volume of its own."""

    def __init__(self, root: str) -> None:
        self.storage = Storage(root)
        self.root = self.storage.root

    def put(self, name: str, data: bytes) -> None:
        self.storage.write(name, data)

    def create(self, name: str, data: bytes) -> None:
        self.storage.create(name, data)

    def get(self, name: str) -> bytes:
        return self.storage.read(name)

    def list(self, prefix: str) -> Iterator[Stored]:
        root = self.storage.local_path()
        with explained(str(root / prefix), "list"):
            for path in sorted((root / prefix).rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    status = path.stat()
                    name = PurePosixPath(path.relative_to(root)).as_posix()
                    yield Stored(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def delete(self, name: str) -> None:
        try:
            self.storage.delete_tree(name)
        except NotFound:
            return

    def now(self) -> datetime:
        return datetime.now(UTC)


def open_objects(settings: StoreSettings) -> Objects:
    """The store that `settings.root` names."""
    if settings.root.startswith("s3://"):
        return S3Objects(settings)
    return FolderObjects(settings.root)


def _checksum(data: bytes) -> dict[str, Any]:
    """S3 refuses a body that does not match. Naming the algorithm, too, is what Object Lock demands."""
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()}
