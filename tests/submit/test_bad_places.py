"""A place that is not ready is one line that says what to do, and leaves nothing behind."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from api_server import NOBODY, ApiServer
from conftest import change_profile
from kubernetes.client import ApiClient
from listener import Resets, listen

from jobs import cli, manage, submit
from jobs.cluster import helm as helm_module
from jobs.cluster import profile
from jobs.cluster.kube import Cluster, Gone
from jobs.cluster.mirror import Mirror
from jobs.runs import Run, run_ids
from jobs.storage import Storage


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call a command that must fail; returns its exit code and its one line."""

    def run(module, *arguments: str, name: str = "kind") -> tuple[int, str]:  # type: ignore[no-untyped-def]
        monkeypatch.setattr(sys, "argv", ["make", *arguments, "--profile", name])
        with pytest.raises(SystemExit) as ended:
            cli.main(module.main)
        err = capfd.readouterr().err
        (line,) = err.splitlines()
        return int(ended.value.code or 0), line

    return run


def test_unknown_profile_and_environment(place: str, refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert refused(submit, "train", name="knd") == (2, "error: PROFILE=knd: no such profile; did you mean kind?")
    assert refused(manage, "runs", name="zzz") == (
        2, "error: PROFILE=zzz: no such profile; there are local, aws, kind"
    )  # fmt: skip
    monkeypatch.setattr(profile, "ROOT", tmp_path)
    code, line = refused(submit, "train", "--env", "staging", name="aws")
    assert code == 3 and "staging.json: not there; `make` writes it from terraform/environments/staging.yaml" in line


def test_wrong_profile(profiles: Path, refused) -> None:  # type: ignore[no-untyped-def]
    change_profile(profiles, namespce="x")
    code, line = refused(submit, "train")
    assert code == 2 and "namespce: unknown key; did you mean namespace?" in line


def test_settings_that_no_cluster_can_run(place: str, refused) -> None:  # type: ignore[no-untyped-def]
    code, line = refused(submit, "train", "--set", "scaling.workers=0")
    assert code == 2 and "scaling.workers=0 runs in the process that starts the job" in line
    code, line = refused(submit, "train", "--set", "storage.root=output")
    assert code == 2 and "storage.root=output: pods cannot reach this machine" in line
    code, line = refused(submit, "train", "--set", "data.source=nothing.jsonl")
    assert code == 2 and "nothing.jsonl: no such file" in line


def test_kubeconfig_and_context(place: str, refused, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    change_profile(profiles, kube_context="kind-haetsall")
    code, line = refused(submit, "train")
    assert code == 3 and "has no context kind-haetsall; did you mean kind-haetsal?" in line
    monkeypatch.setenv("KUBECONFIG", str(profiles / "none"))
    code, line = refused(submit, "train")
    assert code == 3 and "no usable kubeconfig" in line and run_ids(Storage(place)) == []


def test_api_server_that_is_away(place: str, refused, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(url="https://127.0.0.1:9")))
    code, line = refused(submit, "train")
    assert code == 4 and "the API server https://127.0.0.1:9 does not answer" in line


def test_runs_are_listed_without_a_cluster_that_is_away_and_is_asked_once(
    place: str, call, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """Each question to a server that never answers takes its whole patience."""
    made = [Run.create(Storage(place), "train", "").id for _ in range(12)]
    with listen() as away:
        away.otherwise = Resets()
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(url=away.url)))
        code, out, _ = call(manage, "runs")
    assert away.hurt, "the fault must happen"
    assert code == 0 and all(run_id in out for run_id in made)
    assert len({asked.path for asked in away.asked}) == 1


def test_user_who_may_not(place: str, refused, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(NOBODY)))
    code, line = refused(submit, "train")
    assert code == 3 and "may not" in line and "rayjobs" in line
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig("expired")))
    code, line = refused(submit, "train")
    assert code == 3 and "your credentials are not accepted" in line


def test_namespace_that_is_not_there(place: str, refused, profiles: Path) -> None:  # type: ignore[no-untyped-def]
    change_profile(profiles, namespace="nowhere")
    code, line = refused(submit, "train")
    assert code == 3 and "there is no namespace nowhere; `make apply` makes it" in line


def test_cluster_without_kuberay(place: str, refused, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("jobs.cluster.kube.GROUP", "missing.ray.io")  # to the server the same as CRDs not installed
    code, line = refused(submit, "train")
    assert code == 3 and "has no RayJobs; `make crds` and `make apply` install KubeRay" in line


def test_helm_and_chart(place: str, refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert refused(submit, "train") == (3, "error: helm is not installed; `make setup` brings it")
    (tmp_path / "helm").touch()
    monkeypatch.setattr(helm_module, "CHART", helm_module.ROOT / "charts" / "none")
    code, line = refused(submit, "train")
    assert code == 3 and "charts/none: the chart is not there" in line


def test_unknown_run_and_missing_name(place: str, refused) -> None:  # type: ignore[no-untyped-def]
    for verb in ("status", "logs", "stop", "resume", "fetch"):
        code, line = refused(manage, verb, "--run", "train-20261122-101500-3fa9")
        assert code == 2 and "no run 'train-20261122-101500-3fa9'; there are no runs yet" in line
    code, line = refused(manage, "status")
    assert code == 2 and "which run? make status RUN=<run-id>" in line


def test_watch_that_the_server_has_forgotten(place: str, api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """410 is an answer like any other: everything is listed again, and what came meanwhile is there."""
    import queue

    from api_server import NAMESPACE
    from kubernetes import client

    cluster, core, changed = Cluster(profile.load("kind", "dev")), client.CoreV1Api(api), queue.SimpleQueue()
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "early"}, "spec": _SPEC})
    listing, watch, forgotten = cluster.listing, cluster.watch, []

    def watch_once_forgotten(kind: str, *arguments):  # type: ignore[no-untyped-def]
        if kind == "pods" and not forgotten:
            core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "meanwhile"}, "spec": _SPEC})
            forgotten.append(kind)
            raise Gone("too old resource version")
        yield from watch(kind, *arguments)

    monkeypatch.setattr(cluster, "watch", watch_once_forgotten)
    with Mirror(cluster, "train-20261122-101500-3fa9", changed) as mirror:
        while {pod["metadata"]["name"] for pod in mirror.objects()["pods"]} != {"early", "meanwhile"}:
            changed.get(timeout=10)
        core.delete_namespaced_pod("early", NAMESPACE, grace_period_seconds=0)
        while {pod["metadata"]["name"] for pod in mirror.objects()["pods"]} != {"meanwhile"}:
            changed.get(timeout=10)
    assert forgotten and listing


_SPEC = {"containers": [{"name": "c", "image": "i"}]}
