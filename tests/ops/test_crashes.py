"""Kill -9 in the middle. All points are in `make bench ARGS=backup`; here a sample that changes from day to day."""

from __future__ import annotations

import random
import signal
from datetime import UTC, datetime

import crashes
from platform_under_test import Platform
from postgres import MLFLOW_ROWS, MLFLOW_TABLES, Server
from proxy import Proxy

_SAMPLE = 1
_seed = datetime.now(UTC).strftime("%Y%m%d")


def test_a_killed_backup_is_absent_or_whole(platform: Platform, s3_proxy: Proxy, api_proxy: Proxy) -> None:
    platform.run("backup")
    every = crashes.points(s3_proxy, api_proxy)
    assert len(every) > 30
    for number, point in enumerate(random.Random(_seed).sample(every, _SAMPLE)):
        platform.namespace.patch("ConfigMap", "gateway", {"data": {"changed": str(number)}})
        assert crashes.kill_at(platform.with_(store__reuse_days=1e-9), point, "backup"), point
        assert list(crashes.broken_backups(platform)) == [], point
        done = platform.run("backup")
        assert done.code == 0, (point, done.err)
        assert list(crashes.broken_backups(platform)) == [], point


def test_a_killed_restore_is_run_again_to_the_end(platform: Platform, s3_proxy: Proxy, api_proxy: Proxy) -> None:
    platform.run("backup")
    platform.namespace.clear()
    with platform.operator():
        api_proxy.reset()
        platform.run("restore")
        wanted = sorted(platform.versions())
        every = crashes.points(api_proxy)
        assert len(every) > 14
        for point in random.Random(_seed).sample(every, _SAMPLE):
            platform.namespace.clear()
            assert crashes.kill_at(platform, point, "restore"), point
            done = platform.run("restore")
            assert done.code == 0, (point, done.err)
            assert sorted(platform.versions()) == wanted, point


def test_a_database_restore_that_is_killed_changes_nothing(platform: Platform, postgres_server: Server) -> None:
    name = f"killed_{platform.namespace.name.replace('-', '_')}"
    url = postgres_server.create(name)
    # More than the pipes between the programs hold, so that the killed process has not yet handed on everything.
    many = "INSERT INTO metrics SELECT 'k', n, n, repeat('0', 31) || '1', n, false FROM generate_series(2, 60000) n"
    postgres_server.ask(f"{MLFLOW_TABLES}{MLFLOW_ROWS}{many}", name)
    platform = platform.with_(mlflow__database=url)
    platform.run("backup")
    postgres_server.ask("INSERT INTO experiments VALUES (5, 'later')", name)
    with postgres_server.locked(name, "runs"):
        process = platform.start("restore", "--conflict", "update")
        postgres_server.wait_for_blocked(name)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    postgres_server.wait_for_idle(name)
    assert postgres_server.ask("SELECT count(*) FROM experiments", name) == ["3"], "it must be as it was"
    with platform.operator():
        done = platform.run("restore", "--conflict", "update")
    assert done.code == 0, done.err
    assert postgres_server.ask("SELECT count(*) FROM experiments", name) == ["2"]
