"""Retention: which backups stay, and that deleting never breaks one."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import crashes
from platform_under_test import Platform

from ops.backup import catalog
from ops.backup.catalog import State
from ops.retention import Kept, kept
from ops.settings import RetentionSettings

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
FEW = {"retention.hourly": 1, "retention.daily": 0, "retention.weekly": 0}


def hourly(count: int, state: State = State.COMPLETED) -> list[Kept]:
    return [Kept(f"b{hours:04}", state, NOW - timedelta(hours=hours)) for hours in range(count)]


def test_hours_days_and_weeks() -> None:
    stay = kept(hourly(24 * 40), RetentionSettings(hourly=24, daily=7, weekly=5))
    days = {f"b{hours:04}" for hours in [0, *range(13, 24 * 7, 24)][:7]}
    assert {f"b{hours:04}" for hours in range(24)} <= stay
    assert days <= stay
    weeks = {(NOW - timedelta(hours=int(name[1:]))).strftime("%G%V") for name in stay}
    assert len(weeks) == 5
    assert len(stay) == 24 + 5 + 4, "24 hours, 5 more days, 4 more weeks: Sunday is both a day and a week"


def test_the_newest_whole_backup_stays_under_any_rules() -> None:
    none = RetentionSettings(hourly=0, daily=0, weekly=0)
    assert kept(hourly(50), none) == {"b0000"}
    partial = hourly(3, State.PARTIALLY_FAILED)
    whole = [
        Kept("whole", State.COMPLETED, NOW - timedelta(days=90)),
        Kept("old", State.COMPLETED, NOW - timedelta(days=91)),
    ]
    assert kept(partial + whole, none) == {"b0000", "b0001", "b0002", "whole"}, "partial ones never count as fresh"
    assert kept([], none) == set()


def test_partial_backups_go_once_a_whole_one_follows() -> None:
    older = [Kept("partial", State.PARTIALLY_FAILED, NOW - timedelta(hours=1))]
    assert kept([*hourly(1), *older], RetentionSettings()) == {"b0000"}


def test_blobs_go_only_when_old_and_unlisted(platform: Platform, tmp_path: Path) -> None:
    store = tmp_path / "store"
    platform = platform.with_(store__root=store, **{key.replace(".", "__"): value for key, value in FEW.items()})
    first = platform.run("backup").backup_id
    platform.namespace.patch("ConfigMap", "gateway", {"data": {"gateway.yaml": "new"}})
    second = platform.run("backup").backup_id
    blobs = sorted(path.name for path in (store / "objects").rglob("*") if path.is_file())
    done = platform.run("retention")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (store / "objects").rglob("*") if path.is_file()) == blobs, "all are young"
    _age(store, days=9)
    done = platform.run("retention")
    assert "deleted 0 and 2 blobs" in done.out, "the old ConfigMap and the old index"
    remaining = {path.name for path in (store / "manifests").iterdir()}
    assert remaining == {f"{second}.json"} != {f"{first}.json"}
    assert list(crashes.broken_backups(platform)) == []
    with platform.operator():
        assert platform.run("restore").code == 0


def test_blobs_that_grow_old_are_stored_again_before_they_may_be_deleted(platform: Platform, tmp_path: Path) -> None:
    store = tmp_path / "store"
    platform = platform.with_(store__root=store)
    platform.run("backup")
    _age(store, days=6.9)
    assert "sent 0," in platform.run("backup").out
    _age(store, days=7.1)
    again = platform.run("backup")
    assert "sent 0," not in again.out
    assert all(path.stat().st_mtime > time.time() - 86_400 for path in (store / "objects").rglob("*") if path.is_file())


def test_a_damaged_manifest_stops_retention(platform: Platform, tmp_path: Path) -> None:
    store = tmp_path / "store"
    platform = platform.with_(store__root=store)
    platform.run("backup")
    last = platform.run("backup").backup_id
    path = store / f"manifests/{last}.json"
    path.write_bytes(path.read_bytes().replace(b"Completed", b"completed"))
    before = sorted(store.rglob("*"))
    done = platform.run("retention")
    assert done.code == 5
    assert sorted(store.rglob("*")) == before


def test_object_lock(platform: Platform) -> None:
    s3 = boto3.client("s3")
    bucket = f"locked-{platform.namespace.name}"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 14}}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    platform = platform.with_(
        store__root=f"s3://{bucket}", **{key.replace(".", "__"): value for key, value in FEW.items()}
    )
    first = platform.run("backup").backup_id
    second = platform.run("backup").backup_id
    version = s3.list_object_versions(Bucket=bucket, Prefix=f"manifests/{first}")["Versions"][0]["VersionId"]
    done = platform.run("retention")
    assert done.code == 0, done.err
    assert catalog.backup_ids(platform.objects) == [second]
    kept_version = s3.get_object(Bucket=bucket, Key=f"manifests/{first}.json", VersionId=version)
    assert kept_version["Body"].read(), "the lock holds the version; only its name is hidden"


def test_what_died_is_marked_and_forgotten(platform: Platform, tmp_path: Path) -> None:
    store = tmp_path / "store"
    platform = platform.with_(store__root=store)
    objects = platform.objects
    catalog.begin(objects, "backup-20200101-000000-dead", "")
    assert catalog.states(objects) == {"backup-20200101-000000-dead": State.IN_PROGRESS}
    backup_id = platform.run("backup").backup_id
    assert catalog.states(objects) == {"backup-20200101-000000-dead": State.FAILED, backup_id: State.COMPLETED}
    _age(store, days=9)
    platform.run("retention")
    assert catalog.states(objects) == {backup_id: State.COMPLETED}


def _age(store: Path, days: float) -> None:
    """Make everything in the store look as old."""
    moment = time.time() - days * 86_400
    for path in store.rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))
