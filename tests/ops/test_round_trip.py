"""Backup, disaster, restore: what comes back, what must not, and what a second time does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import rayapi
from apiserver import Kube
from platform_under_test import Platform
from postgres import MLFLOW_ROWS, MLFLOW_TABLES, Server
from rayapi import Namespace

from jobs.manifest import compute, write_manifest
from ops.backup import catalog
from ops.backup.catalog import State
from ops.backup.sealing import Sealing, make_keys
from ops.kube import Cluster
from ops.restore.content import open_backup
from ops.settings import ClusterSettings, KeySettings


def test_everything_comes_back_and_ended_jobs_do_not_run_again(platform: Platform) -> None:
    namespace = platform.namespace
    before = {kind: namespace.names(kind) for kind in ("ConfigMap", *rayapi.SPECS)}
    rows = platform.rows("SELECT * FROM registered_model_aliases ORDER BY 1, 2")
    backup_id = platform.run("backup").backup_id
    namespace.clear()
    platform.database.unlink()
    with platform.operator():
        done = platform.run("restore")
    assert done.code == 0, done.err
    assert backup_id in done.out
    assert re.search(r"recovered in \d", done.out)
    ended = {"train-done", "train-broken"}
    before["RayJob"] = [name for name in before["RayJob"] if name not in ended | {"train-selected"}]
    before["RayCluster"].remove("chat-x7k2p")
    assert {kind: namespace.names(kind) for kind in before} == before
    assert all(f"leave out  RayJob {name}  (it had ended" in done.out for name in ended)
    assert "leave out  RayCluster chat-x7k2p  (its owner makes it)" in done.out
    assert "needs these Secrets, which no backup holds: hub-token" in done.out
    assert platform.rows("SELECT * FROM registered_model_aliases ORDER BY 1, 2") == rows
    for name in ("train-running", "train-kept"):
        job = namespace.get("RayJob", name)
        assert job
        assert job["spec"]["suspend"] and job["spec"]["shutdownAfterJobFinishes"]  # KubeRay wants both
        assert "finalizers" not in job["metadata"]
        assert "status" not in job
    cron = namespace.get("RayCronJob", "nightly")
    assert cron and cron["spec"]["suspend"]
    service = namespace.get("RayService", "chat")
    assert service
    fresh = service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]["externalStorageNamespace"]
    assert fresh == f"chat-{backup_id}"


def test_a_second_restore_changes_nothing(platform: Platform) -> None:
    platform.run("backup")
    platform.namespace.clear()
    platform.database.unlink()
    with platform.operator():
        assert platform.run("restore").code == 0
        versions = platform.versions()
        again = platform.run("restore", "--conflict", "update")
    assert again.code == 0, again.err
    assert "plan: 7 unchanged" in again.out
    assert "unchanged  MLflow's database" in again.out
    assert platform.versions() == versions


def test_resume_wakes_up_a_restored_job_and_no_other(platform: Platform) -> None:
    platform.run("backup")
    assert "was not restored" in platform.run("restore", "--resume", "train-running").error
    platform.namespace.clear()
    with platform.operator():
        platform.run("restore")
    assert platform.run("restore", "--resume", "train-running").code == 0
    job = platform.namespace.get("RayJob", "train-running")
    assert job and job["spec"]["suspend"] is False
    with platform.operator():
        again = platform.run("restore", "--conflict", "update")
    assert "RayJob train-running" not in again.out, "a restore must not put a resumed job to sleep again"


def test_dry_run_prints_the_plan_and_writes_nothing(platform: Platform) -> None:
    namespace = platform.namespace
    platform.run("backup")
    namespace.patch("ConfigMap", "gateway", {"data": {"gateway.yaml": "routes: []\n"}})
    namespace.kube.ask("DELETE", namespace.path("RayService", "chat"))
    versions = platform.versions()
    done = platform.run("restore", "--dry-run", "--conflict", "update")
    assert done.code == 0, done.err
    assert "update     ConfigMap gateway" in done.out
    assert "data.gateway.yaml: 'routes: []\\n' -> 'routes: [챗봇]\\n'" in done.out
    assert "create     RayService chat" in done.out
    assert "recovered" not in done.out
    assert platform.versions() == versions


@pytest.mark.parametrize("policy", ["skip", "update", "fail"])
def test_conflicts(platform: Platform, policy: str) -> None:
    namespace = platform.namespace
    platform.run("backup")
    namespace.patch("RayCluster", "shared", {"spec": {"rayVersion": "2.99.0"}})
    namespace.kube.ask("DELETE", namespace.path("ConfigMap", "gateway"))
    with platform.operator():
        done = platform.run("restore", "--conflict", policy)
    cluster = namespace.get("RayCluster", "shared")
    assert cluster
    if policy == "fail":
        assert done.code == 2
        assert "RayCluster shared" in done.error
        assert namespace.get("ConfigMap", "gateway") is None, "nothing may be written when something conflicts"
    else:
        assert done.code == 0, done.err
        assert namespace.get("ConfigMap", "gateway") is not None
    assert cluster["spec"]["rayVersion"] == ("2.60.0" if policy == "update" else "2.99.0")


def test_an_object_that_is_being_deleted_stops_the_restore(platform: Platform) -> None:
    platform.run("backup")
    namespace = platform.namespace
    namespace.kube.ask("DELETE", namespace.path("RayCluster", "shared"))  # its finalizer holds it
    done = platform.run("restore")
    assert done.code == 3
    assert "RayCluster shared: it is being deleted" in done.error


def test_another_namespace(platform: Platform, kube: Kube) -> None:
    platform.run("backup")
    other = Namespace(kube, f"{platform.namespace.name}-other")
    elsewhere = platform.with_(cluster__namespace=other.name)
    with elsewhere.operator(other):
        done = elsewhere.run("restore")
    assert done.code == 0, done.err
    assert other.names("RayJob") == ["train-kept", "train-running"]
    assert other.names("RayService") == ["chat"]


def test_an_unchanged_object_is_stored_once(platform: Platform) -> None:
    first = platform.run("backup")
    second = platform.run("backup")
    sent = re.search(r"sent (\d+),", second.out)
    assert sent and sent[1] == "0", second.out
    assert first.backup_id != second.backup_id
    platform.namespace.patch("ConfigMap", "gateway", {"data": {"new": "1"}})
    third = platform.run("backup")
    sent = re.search(r"sent (\d+),", third.out)
    assert sent and sent[1] == "2", "the changed object and the index"


def test_encrypted_and_signed(platform: Platform, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    keys = tmp_path / "keys"
    sealed = platform.with_(
        keys__encryption=keys / "encryption.key",
        keys__signing=keys / "signing.pem",
        keys__verifying=keys / "verifying.pem",
    )
    backup_id = sealed.run("backup").backup_id
    names = [stored.name for stored in platform.objects.list("objects/")]
    assert not any("챗봇".encode() in platform.objects.get(name) for name in names)
    second = sealed.run("backup")
    assert ", sent" not in second.out
    assert "sent 0," in second.out, "encryption must not hide that nothing changed"
    sealed.namespace.clear()
    assert "is encrypted; set keys.encryption" in platform.run("restore").error
    make_keys(tmp_path / "others")
    others = platform.with_(keys__encryption=tmp_path / "others/encryption.key")
    wrong = others.run("restore")
    assert wrong.code == 5
    assert "cannot be decrypted" in wrong.error
    stranger = sealed.with_(keys__verifying=tmp_path / "others/verifying.pem")
    assert "its signature is wrong" in stranger.run("restore", "--backup", backup_id).error
    with sealed.operator():
        assert sealed.run("restore", "--backup", backup_id).code == 0
    unsigned = platform.with_(keys__verifying=keys / "verifying.pem")
    plain = platform.run("backup").backup_id
    assert "is not signed" in unsigned.run("restore", "--backup", plain).error


def test_postgres(platform: Platform, postgres_server: Server) -> None:
    name = platform.namespace.name.replace("-", "_")
    url = postgres_server.create(name)
    postgres_server.ask(MLFLOW_TABLES + MLFLOW_ROWS, name)
    sealed = platform.with_(mlflow__database=url)
    backup_id = sealed.run("backup").backup_id
    manifest = catalog.read(platform.objects, backup_id, Sealing())
    assert manifest.state is State.COMPLETED
    postgres_server.ask("DROP TABLE metrics; UPDATE registered_model_aliases SET version = 9", name)
    postgres_server.ask("CREATE TABLE newer (id INTEGER)", name)
    with sealed.operator():
        done = sealed.run("restore", "--conflict", "update")
    assert done.code == 0, done.err
    assert postgres_server.ask("SELECT alias, version FROM registered_model_aliases ORDER BY 1", name) == [
        "challenger|2",
        "champion|1",
    ]
    assert postgres_server.ask("SELECT count(*) FROM metrics", name) == ["1"]
    assert postgres_server.ask("SELECT to_regclass('public.newer')", name) == [""]
    postgres_server.ask("INSERT INTO experiments VALUES (7, 'since')", name)
    with sealed.operator():
        again = sealed.run("restore", "--conflict", "update")
    assert "unchanged  MLflow's database" in again.out
    assert postgres_server.ask("SELECT count(*) FROM experiments", name) == ["3"], "what was written since must stay"
    drilled = sealed.run("drill")
    assert drilled.code == 0, drilled.err
    assert postgres_server.ask("SELECT datname FROM pg_database WHERE datname LIKE 'haetsal_drill%'") == []


def test_drill(platform: Platform) -> None:
    backup_id = platform.run("backup").backup_id
    versions = platform.versions()
    rows = platform.rows("SELECT * FROM metrics")
    done = platform.run("drill")
    assert done.code == 0, done.err
    assert backup_id in done.out
    assert "7 objects and 10 rows restored and equal, 4 left out on purpose" in done.out
    assert all(platform.scratch.names(kind) == [] for kind in ("ConfigMap", *rayapi.SPECS))
    assert platform.versions() == versions
    assert platform.rows("SELECT * FROM metrics") == rows
    status = Cluster(ClusterSettings()).get("", "ConfigMap", "haetsal-ops-status", platform.namespace.name)
    assert "haetsal_restore_drill_last_success_timestamp_seconds" in status["data"]["drill.prom"]
    assert "haetsal_backup_last_successful_timestamp_seconds" in status["data"]["backup-success.prom"]


def test_a_drill_sweeps_what_a_killed_one_left(platform: Platform) -> None:
    platform.run("backup")
    leftover = {"annotations": {"haetsal.io/restored-from": "backup-old"}}
    platform.scratch.add("RayCluster", "left-behind", {"suspend": True}, metadata=leftover)
    assert platform.run("drill").code == 0
    assert platform.scratch.names("RayCluster") == []
    platform.scratch.add("ConfigMap", "gateway", data={"of": "somebody else"})
    assert "ConfigMap gateway" in platform.run("drill").error
    assert platform.scratch.names("ConfigMap") == ["gateway"], "a drill deletes only what drills made"


def test_keys_are_never_replaced(tmp_path: Path) -> None:
    make_keys(tmp_path)
    key = (tmp_path / "encryption.key").read_bytes()
    with pytest.raises(Exception, match="is there already"):
        make_keys(tmp_path)
    assert (tmp_path / "encryption.key").read_bytes() == key
    assert (tmp_path / "encryption.key").stat().st_mode & 0o077 == 0
    assert Sealing.load(KeySettings(encryption=tmp_path / "encryption.key")).cipher is not None


def test_artifacts_are_indexed_by_their_hashes_and_the_promotion_log_is_kept(
    platform: Platform, tmp_path: Path
) -> None:
    """The checksums of each run's manifest; a run without a model is left out; a damaged manifest is a problem."""
    root = tmp_path / "runs-root"
    for run in ("train-1", "train-2"):
        model = root / "runs" / run / "model"
        model.mkdir(parents=True)
        (model / "adapter.safetensors").write_bytes(run.encode())
        write_manifest(model)
    (root / "runs" / "train-unfinished").mkdir()
    for pointer in ("latest", "latest-train"):
        (root / "runs" / pointer).write_text("train-2", encoding="utf-8")
    log = b'{"alias": "champion", "to": "2"}\n'
    (root / "promotions.jsonl").write_bytes(log)
    backup_id = platform.with_(runs__root=root).run("backup").backup_id
    content = open_backup(platform.objects, Sealing(), backup_id, 2)
    kept = content.find("PromotionLog")
    assert kept and b"".join(content.stream(kept)) == log
    assert content.value("ArtifactIndex") == {
        f"runs/{run}/model": {"adapter.safetensors": vars(entry)}
        for run in ("train-1", "train-2")
        for entry in compute(root / "runs" / run / "model").values()
    }
    (root / "runs" / "train-1" / "model" / "manifest.json").write_text("{", encoding="utf-8")
    done = platform.with_(runs__root=root).run("backup")
    assert done.code == 4
    assert "runs: " in done.err and "not a manifest" in done.err
