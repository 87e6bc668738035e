"""S3 and the API server misbehave. What passes is survived; what does not ends in one line, nothing is half there."""

from __future__ import annotations

import threading
from collections.abc import Callable

import crashes
import pytest
from platform_under_test import Platform
from proxy import Answer, Fault, Hold, Proxy, Request, Reset, Stall, api_error, first, s3_error

from ops import kube
from ops.backup import catalog
from ops.backup.catalog import State


def _put(request: Request) -> bool:
    return request.method == "PUT" and "/objects/" in request.path


def _manifest(request: Request) -> bool:
    return request.method == "PUT" and "/manifests/" in request.path


def _list(request: Request) -> bool:
    return request.method == "GET" and "list-type" in request.path


S3_FAULTS: dict[str, tuple[int, Callable[[Request], bool], Fault]] = {
    "500 twice": (2, _put, s3_error(500, "InternalError")),
    "503 SlowDown three times": (3, _put, s3_error(503, "SlowDown")),
    "reset in the middle of a body": (2, _put, Reset("half")),
    "answer lost": (2, _put, Reset("lost")),
    "stall": (1, _put, Stall()),
    "manifest: 500": (1, _manifest, s3_error(500, "InternalError")),
    "manifest: answer lost": (1, _manifest, Reset("lost")),
    "list: 503": (1, _list, s3_error(503, "ServiceUnavailable")),
}


@pytest.mark.parametrize("name", S3_FAULTS)
def test_s3_faults_that_pass(platform: Platform, s3_proxy: Proxy, name: str) -> None:
    count, matches, fault = S3_FAULTS[name]
    s3_proxy.reset(first(count, matches, fault))
    done = platform.run("backup")
    assert len(s3_proxy.happened) == count, "the fault must have happened"
    assert done.code == 0, done.err
    assert list(crashes.broken_backups(platform)) == []


def test_s3_fails_for_good(platform: Platform, s3_proxy: Proxy) -> None:
    s3_proxy.reset(lambda request: s3_error(503, "SlowDown") if _put(request) else None)
    done = platform.with_(store__attempts=2).run("backup")
    assert len(s3_proxy.happened) >= 2
    assert done.code == 4
    assert "SlowDown" in done.error
    s3_proxy.reset()
    assert catalog.backup_ids(platform.objects) == []
    assert list(catalog.states(platform.objects).values()) == [State.FAILED]


def _api(method: str, part: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and part in request.path


API_FAULTS: dict[str, tuple[str, int, Callable[[Request], bool], Fault]] = {
    "list: 500": ("backup", 2, _api("GET", "/rayjobs"), api_error(500, "InternalError")),
    "list: 429 with Retry-After": ("backup", 1, _api("GET", "/rayjobs"), api_error(429, "Throttled", Retry_After="1")),
    "list: reset": ("backup", 1, _api("GET", "/rayjobs"), Reset("lost")),
    "discovery: 503": ("backup", 2, _api("GET", "/apis/ray.io"), api_error(503, "ServiceUnavailable")),
    "lease: answer lost": ("backup", 1, _api("POST", "/leases"), Reset("lost")),
    "create: 500": ("restore", 2, _api("POST", "/rayservices"), api_error(500, "InternalError")),
    "create: answer lost": ("restore", 1, _api("POST", "/rayjobs"), Reset("lost")),
    "create: 429": ("restore", 1, _api("POST", "/rayclusters"), api_error(429, "Throttled", Retry_After="1")),
    "replace: 409": ("restore", 2, _api("PUT", "/configmaps"), api_error(409, "Conflict")),
    "list: stall": ("restore", 1, _api("GET", "/rayclusters"), Stall()),
}


@pytest.mark.parametrize("name", API_FAULTS)
def test_api_faults_that_pass(platform: Platform, api_proxy: Proxy, name: str) -> None:
    command, count, matches, fault = API_FAULTS[name]
    platform = platform.with_(cluster__request_timeout_s=2)
    if command == "restore":
        platform.run("backup")
        for kind in ("RayService", "RayJob", "RayCluster"):
            for item in platform.namespace.names(kind):
                platform.namespace.patch(kind, item, {"metadata": {"finalizers": None}})
                platform.namespace.kube.ask("DELETE", platform.namespace.path(kind, item))
        platform.namespace.patch("ConfigMap", "gateway", {"data": {"gateway.yaml": "broken"}})
    api_proxy.reset(first(count, matches, fault))
    arguments = ["--conflict", "update"] if command == "restore" else []
    with platform.operator():
        done = platform.run(command, *arguments)
    assert len(api_proxy.happened) == count, "the fault must have happened"
    assert done.code == 0, done.err
    if command == "restore":
        assert platform.namespace.names("RayJob") == ["train-kept", "train-running"]
        gateway = platform.namespace.get("ConfigMap", "gateway")
        assert gateway and "챗봇" in gateway["data"]["gateway.yaml"]
    else:
        assert list(crashes.broken_backups(platform)) == []


def test_a_list_that_expires_between_its_pages(
    platform: Platform, api_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "_PAGE", 2)
    api_proxy.reset(first(2, _api("GET", "continue="), api_error(410, "Expired")))
    done = platform.run("backup")
    assert [fault.status for fault, _ in api_proxy.happened if isinstance(fault, Answer)] == [410, 410]
    assert "5 RayJob" in done.out, "every job, and none twice"
    api_proxy.reset(lambda request: api_error(410, "Expired") if "continue=" in request.path else None)
    done = platform.run("backup")
    assert done.code == 4
    assert "forgot its list" in done.error


@pytest.mark.parametrize("other", ["backup", "retention", "restore"])
def test_one_at_a_time(platform: Platform, s3_proxy: Proxy, other: str) -> None:
    if other == "restore":
        platform.run("backup")
    before = len(catalog.backup_ids(platform.objects))
    hold = Hold(threading.Event(), threading.Event())
    s3_proxy.reset(first(1, lambda request: request.change == 0, hold))
    running = platform.with_(store__request_timeout_s=30).start("backup")
    try:
        assert hold.arrived.wait(30)
        second = platform.run(other)
        assert second.code == 3
        assert "haetsal-backup" in second.error and "held by" in second.error
    finally:
        hold.release.set()
        running.join(60)
    assert running.exitcode == 0
    assert len(catalog.backup_ids(platform.objects)) == before + 1


def test_a_dashboard_that_is_away_makes_the_backup_partial(platform: Platform) -> None:
    whole = platform.run("backup").backup_id
    status = {"state": "ready", "head": {"serviceName": "127.0.0.1"}}
    platform.namespace.set_status("RayCluster", "shared", status)
    done = platform.with_(cluster__dashboard="http://{service}:9").run("backup")
    assert done.code == 4
    assert "PartiallyFailed" in done.error and "RayCluster shared" in done.error
    partial = catalog.backup_ids(platform.objects)[-1]
    assert partial != whole
    assert f"backup {whole}" in platform.run("restore", "--dry-run").out, "latest is the newest Completed one"
    named = platform.run("restore", "--dry-run", "--backup", partial)
    assert "PartiallyFailed: RayCluster shared" in named.out
