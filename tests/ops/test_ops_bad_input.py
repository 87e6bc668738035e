"""Wrong input and environments that are not ready: one line that says what to do, and an exit code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from platform_under_test import Platform
from proxy import Answer, Proxy, api_error, s3_error

from ops.backup import catalog

CASES: dict[str, tuple[str, dict[str, object], tuple[str, ...], int, str]] = {
    "bucket gone": ("backup", {"store.root": "s3://no-such-bucket/x"}, (), 3, "there is no bucket no-such-bucket"),
    "no bucket named": ("backup", {"store.root": "s3://"}, (), 2, "names no bucket"),
    "unknown backup": ("restore", {}, ("--backup", "backup-1"), 2, "no backup backup-1; there is no backup yet"),
    "no backup yet": ("restore", {}, (), 2, "there is no Completed backup"),
    "no backup to drill": ("drill", {}, (), 2, "there is no Completed backup"),
    "unknown setting": ("backup", {"store.roof": "x"}, (), 2, "did you mean root?"),
    "password in the address": ("backup", {"mlflow.database": "postgresql://a:b@h/d"}, (), 2, "PGPASSFILE"),
    "unknown database": ("backup", {"mlflow.database": "mysql://h/d"}, (), 2, "must be sqlite:///"),
    "database missing": ("backup", {"mlflow.database": "sqlite:////no/such.db"}, (), 3, "check mlflow.database"),
    "database away": ("backup", {"mlflow.database": "postgresql://u@127.0.0.1:1/d"}, (), 4, "does not answer"),
    "namespace missing": ("backup", {"cluster.namespace": "nowhere"}, (), 3, "nowhere"),
    "context missing": ("backup", {"cluster.context": "nowhere"}, (), 3, "cluster.context"),
    "key missing": ("backup", {"keys.encryption": "/no/such.key"}, (), 3, "mount its Secret"),
    "retention too eager": ("retention", {"retention.grace_days": 7}, (), 2, "must exceed store.reuse_days"),
    "drill at home": ("drill", {"drill.namespace": "haetsal", "cluster.namespace": "haetsal"}, (), 2, "would empty"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line(bare: Platform, name: str) -> None:
    command, settings, arguments, code, said = CASES[name]
    values = {key.replace(".", "__"): value for key, value in settings.items()}
    done = bare.with_(**values).run(command, *arguments)
    assert said in done.error
    assert done.code == code


FORGED: dict[str, tuple[Answer, int, str]] = {
    "expired credentials": (s3_error(403, "ExpiredToken"), 3, "ExpiredToken"),
    "access denied": (s3_error(403, "AccessDenied"), 3, "access denied"),
    "wrong region": (s3_error(400, "AuthorizationHeaderMalformed"), 4, "AuthorizationHeaderMalformed"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_s3_refuses(bare: Platform, s3_proxy: Proxy, name: str) -> None:
    answer, code, said = FORGED[name]
    s3_proxy.reset(lambda _: answer)
    done = bare.run("restore")
    assert s3_proxy.happened
    assert said in done.error
    assert done.code == code


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_crds_are_missing(platform: Platform, api_proxy: Proxy, command: str) -> None:
    platform.run("backup")
    api_proxy.reset(lambda request: api_error(404, "NotFound") if "/apis/ray.io" in request.path else None)
    done = platform.run(command)
    assert api_proxy.happened
    assert done.code == 3
    assert "no kind RayCluster of ray.io; install its CRD" in done.error


def test_restore_into_a_namespace_that_is_not_there(platform: Platform) -> None:
    platform.run("backup")
    done = platform.with_(cluster__namespace="nowhere").run("restore", "--dry-run")
    assert done.code == 3
    assert "Namespace nowhere: is not there" in done.error


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda tree: tree.update(format=2, news=1), 2, "restore with a newer release"),
        (lambda tree: tree["origin"].update(cluster="x"), 5, "is not a manifest"),
    ],
)
def test_another_version_s_backup(platform: Platform, change: Callable[[dict], None], code: int, said: str) -> None:
    backup_id = platform.run("backup").backup_id
    objects = platform.objects
    name = f"manifests/{backup_id}.json"
    tree = json.loads(objects.get(name).split(b"\n")[0])
    change(tree)
    payload = json.dumps(tree).encode()
    seal = {"sha256": hashlib.sha256(payload).hexdigest(), "signature": None}
    objects.put(name, payload + b"\n" + json.dumps(seal).encode() + b"\n")
    done = platform.run("restore")
    assert done.code == code
    assert said in done.error
    assert catalog.backup_ids(objects) == [backup_id]
