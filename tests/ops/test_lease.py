"""One holder at a time, whatever the clocks say."""

from __future__ import annotations

import threading
from pathlib import Path

import proxy
import pytest
from apiserver import Kube
from proxy import Reset, api_error, first
from rayapi import Namespace

from ops.kube import Cluster
from ops.lease import Busy, Lost, held
from ops.settings import ClusterSettings

HOUR_AWAY = ["2020-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"]


@pytest.fixture
def cluster(kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
    Namespace(kube, "leases")
    return Cluster(ClusterSettings())


def put(kube: Kube, name: str, renewed: str) -> str:
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 1, "renewTime": renewed}
    path = "/apis/coordination.k8s.io/v1/namespaces/leases/leases"
    kube.ask("POST", path, {"metadata": {"name": name}, "spec": spec})
    return f"{path}/{name}"


@pytest.mark.parametrize("renewed", HOUR_AWAY)
def test_a_dead_holder_s_lease_is_taken_whatever_time_it_wrote(cluster: Cluster, kube: Kube, renewed: str) -> None:
    put(kube, f"dead-{renewed[:4]}", renewed)
    with held(cluster, "leases", f"dead-{renewed[:4]}", 1) as lease:
        lease.check()


@pytest.mark.parametrize("renewed", HOUR_AWAY)
def test_a_living_holder_s_lease_is_not(cluster: Cluster, kube: Kube, renewed: str) -> None:
    path = put(kube, f"alive-{renewed[:4]}", renewed)
    stop = threading.Event()

    def renew() -> None:
        count = 0
        while not stop.wait(0.1):
            count += 1  # a clock that stands still or runs wild
            change = {"spec": {"renewTime": renewed.replace(".000000", f".{count:06}")}}
            kube.ask("PATCH", path, change, "application/merge-patch+json")

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(Busy, match="held by somebody"), held(cluster, "leases", f"alive-{renewed[:4]}", 1):
            pass
    finally:
        stop.set()
        thread.join()


def test_only_one_of_many_gets_it(cluster: Cluster) -> None:
    results: list[str] = []
    barrier, busy = threading.Barrier(4), threading.Semaphore(0)

    def take() -> None:
        barrier.wait()
        try:
            with held(cluster, "leases", "wanted", 1):
                results.append("held")
                for _ in range(3):
                    assert busy.acquire(timeout=20)
        except Busy:
            results.append("busy")
            busy.release()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["busy", "busy", "busy", "held"]


def test_a_lease_that_cannot_be_renewed_is_lost(
    cluster: Cluster, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    with proxy.before(kube.url) as it:
        monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "proxied", it.url)))
        with held(Cluster(ClusterSettings(request_timeout_s=1)), "leases", "cut", 1) as lease:
            lease.check()
            broken = threading.Event()

            def rule(request: proxy.Request) -> proxy.Fault | None:
                if request.method == "PUT":
                    broken.set()
                    return api_error(403, "Forbidden")
                return None

            it.reset(rule)
            assert broken.wait(5)
            lease._stop.wait(1.2)
            with pytest.raises(Lost, match="not renewed for 1 s"):
                lease.check()
        assert it.happened


def test_an_answer_that_was_lost_does_not_lose_the_lease(
    kube: Kube, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    with proxy.before(kube.url) as it:
        monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "proxied", it.url)))
        it.reset(first(2, lambda request: request.method in ("POST", "PUT"), Reset("lost")))
        with held(Cluster(ClusterSettings(request_timeout_s=2)), "leases", "unsure", 5) as lease:
            lease.check()
        assert len(it.happened) == 2
