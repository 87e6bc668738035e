"""`make train PROFILE=kind` on a real control plane: the operator, the scheduler and the controllers are the real ones.

Most runs are on KWOK's nodes, where the test answers in the place of Ray's dashboard; one is on a node whose pods are
processes, and really trains.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from api_server import NAMESPACE, ApiServer
from cluster_side import alongside

from jobs import manage, submit
from jobs.cluster.helm import Helm
from jobs.runs import Run
from jobs.storage import Storage
from tests.cluster import control_plane, kwok
from tests.cluster.dashboard import Dashboard
from tests.cluster.fleet import set_operator_ready, set_ready
from tests.cluster.kube import Kube, named, path, phase, stamp
from tests.cluster.process_node import ProcessNode
from tests.submit.conftest import _moto, call, change_profile, data, helm, place, profiles, said

__all__ = ["_moto", "call", "data", "helm", "place", "profiles", "said"]

pytestmark = pytest.mark.usefixtures("platform", "no_runs_left")
JOBS = path(NAMESPACE, "rayjobs")


class Ray(Dashboard):
    """The dashboard of a run's head, where the operator looks for it: behind the head's Service."""

    def __init__(self, kube: Kube) -> None:
        super().__init__()
        self._kube = kube

    def answer_for(self, run_id: str) -> None:
        """Lead the Service of the run's head here."""
        job = self._kube.wait(_one(run_id), lambda it: bool((it.get("status") or {}).get("rayClusterName")))
        self.cluster = job["status"]["rayClusterName"]
        heads = path(NAMESPACE, "pods", selector=f"labelSelector=ray.io/cluster={self.cluster},ray.io/node-type=head")
        head = self._kube.wait(heads, lambda pod: (pod.get("status") or {}).get("phase") == "Running")
        address = control_plane.own_address()
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
        where = path(NAMESPACE, "pods", head["metadata"]["name"]) + "/status"
        self._kube.ask("PATCH", where, status, Kube.MERGE)
        self.state, self.message = "RUNNING", ""

    def end(self, run_id: str, state: str, message: str) -> None:
        """The job ends, and with it the submitter, which shows its log: the operator waits for both."""
        self.state, self.message = state, message
        where = path(NAMESPACE, "pods", selector=f"labelSelector=job-name={run_id}")
        pod = self._kube.wait(where, lambda it: (it.get("status") or {}).get("phase") == "Running")
        over = {"exitCode": 0, "reason": "Completed", "startedAt": stamp(), "finishedAt": stamp()}
        containers = [
            it | {"ready": False, "started": False, "state": {"terminated": over}}
            for it in pod["status"]["containerStatuses"]
        ]
        set_ready(self._kube, pod, False, phase="Succeeded", containerStatuses=containers)


@pytest.fixture
def no_runs_left(kube: Kube) -> Iterator[None]:
    """A test that failed leaves nothing to the next."""
    yield
    kube.ask("DELETE", JOBS)
    kube.wait_gone(JOBS)


@pytest.fixture(autouse=True)
def patient(profiles: Path) -> None:
    """An operator on a busy machine answers late."""
    change_profile(profiles, operator_deadline_s=120, start_deadline_s=300)


@pytest.fixture
def ray(kube: Kube) -> Iterator[Ray]:
    made = Ray(kube)
    with made.serving(control_plane.own_address(), 8265):  # the port of the head's Service
        yield made


def _one(run_id: str) -> str:
    return named(NAMESPACE, "rayjobs", run_id)


def next_run(kube: Kube, but: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """Id of the run that is there, or comes."""
    return str(kube.wait(JOBS, lambda it: it["metadata"]["name"] not in but)["metadata"]["name"])


def test_stop_resume_retry_and_failure(
    place: str,
    helm: Helm,
    server: ApiServer,
    kube: Kube,
    ray: Ray,
    call: Any,
    said: Callable[[str], None],
    data: Path,
    profiles: Path,
) -> None:
    change_profile(profiles, retries=1)
    made: list[str] = []

    def until_it_runs() -> None:
        made.append(next_run(kube))
        ray.answer_for(made[0])
        kube.wait(_one(made[0]), phase("Running"))
        said("runs")
        os.kill(os.getpid(), signal.SIGINT)

    with alongside(until_it_runs):
        code, out, error = call(submit, "train", "--set", f"data.source={data}")
    assert code == 130 and "detached; the run goes on" in error
    run_id = made[0]
    assert "its Ray cluster" in out, "it said what it waited for"
    assert f"kind: rayjob haetsal/{run_id}" in call(manage, "runs")[1]

    code, out, _ = call(manage, "stop", "--run", run_id)
    assert code == 0 and f"make resume RUN={run_id} PROFILE=kind" in out
    kube.wait_gone(_one(run_id))
    kube.wait_gone(path(NAMESPACE, "rayclusters", selector=f"labelSelector=ray.io/originated-from-cr-name={run_id}"))

    def until_it_fails_twice() -> None:
        next_run(kube)
        ray.answer_for(run_id)
        kube.wait(_one(run_id), phase("Running"))
        first = ray.cluster
        if server.processes:
            server.restart()  # the command that waits finds its way back
        failure = "Job entrypoint command failed with exit code 5, last available logs:\n"
        ray.end(run_id, "FAILED", failure)
        kube.wait(_one(run_id), lambda it: it["status"].get("rayClusterName", first) not in ("", first))
        ray.answer_for(run_id)
        assert ray.cluster != first, "a retry is a new Ray cluster"
        kube.wait(_one(run_id), phase("Running"))
        ray.end(run_id, "FAILED", failure)

    with alongside(until_it_fails_twice):
        code, out, error = call(manage, "resume", "--run", run_id)
    assert code == 5 and f"error: {run_id}: the job ended with exit code 5" in error
    assert ray.tokens and all(re.fullmatch(r"Bearer \S{20,}", token) for token in ray.tokens), "the cluster's own token"
    helm.remove(run_id)
    kube.wait_gone(_one(run_id))


@contextmanager
def as_it_is(kube: Kube, server: ApiServer) -> Iterator[None]:
    yield


@contextmanager
def small_quota(kube: Kube, server: ApiServer) -> Iterator[None]:
    where = path(NAMESPACE, "resourcequotas")
    kube.ask("POST", where, {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}})
    kube.wait(where, lambda it: bool((it.get("status") or {}).get("hard")))
    try:
        yield
    finally:
        kube.ask("DELETE", path(NAMESPACE, "resourcequotas", "small"))


@contextmanager
def dead_operator(kube: Kube, server: ApiServer) -> Iterator[None]:
    if not server.processes:
        pytest.skip("the operator of a cluster that is not ours is left alone")
    operator = server.processes["kuberay-operator"]
    operator.kill()
    set_operator_ready(kube, False)
    try:
        yield
    finally:
        operator.start()
        set_operator_ready(kube, True)


PENDING = {
    "no GPU": (
        as_it_is,
        {"values": None},
        "scaling.gpus_per_worker=1 scaling.workers=9",
        "no node has 1 free GPU for",
    ),
    "no room": (as_it_is, {}, "scaling.cpus_per_worker=200", "no node has enough cpu for"),
    "quota": (small_quota, {}, "", "the quota small is used up"),
    "dead operator": (dead_operator, {"operator_deadline_s": 1}, "", "the KubeRay operator is down"),
}
"""What is wrong, how the profile is changed, further settings, and what is said."""


@pytest.mark.parametrize("case", PENDING)
def test_pending_is_explained(
    case: str,
    place: str,
    profiles: Path,
    kube: Kube,
    server: ApiServer,
    call: Any,
    said: Callable[[str], None],
    data: Path,
) -> None:
    """What scheduler and operator report becomes one sentence."""
    obstacle, changed, settings, sentence = PENDING[case]
    change_profile(profiles, **changed)

    def until_said() -> None:
        said(sentence)
        os.kill(os.getpid(), signal.SIGINT)

    with obstacle(kube, server), alongside(until_said):
        code, out, _ = call(submit, "train", "--set", f"data.source={data} {settings}")
    assert code == 130 and sentence in out


def test_run_that_does_not_start_is_taken_back(place: str, profiles: Path, kube: Kube, call: Any, data: Path) -> None:
    change_profile(profiles, start_deadline_s=5)
    code, _, error = call(submit, "train", "--set", f"data.source={data} scaling.cpus_per_worker=200")
    assert code == 3 and "It was taken back" in error, error
    kube.wait_gone(JOBS)


def test_deadline_of_the_run(
    place: str, profiles: Path, helm: Helm, kube: Kube, call: Any, said: Callable[[str], None], data: Path
) -> None:
    """KubeRay's own deadline, on a node that cannot be had."""
    made: list[str] = []

    def shorten() -> None:
        made.append(next_run(kube))
        kube.wait(_one(made[0]), phase("Initializing"))
        said("its Ray cluster")
        kube.ask("PATCH", path(NAMESPACE, "rayjobs", made[0]), {"spec": {"activeDeadlineSeconds": 1}}, Kube.MERGE)

    with alongside(shorten):
        code, _, error = call(submit, "train", "--set", f"data.source={data}")
    assert code == 4 and "it took longer than its deadline" in error, error
    helm.remove(made[0])
    kube.wait_gone(JOBS)


@pytest.mark.long
def test_a_run_that_really_trains(
    place: str, _moto: str, helm: Helm, kube: Kube, call: Any, data: Path, tmp_path: Path
) -> None:
    """Head, worker and submitter are processes with Ray inside; the operator finds the head behind its Service."""
    torch.manual_seed(7)
    tokenizer = tiny.tokenizer()
    model = tmp_path / "tiny-model"
    tiny.model(len(tokenizer)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    node = ProcessNode(kube, tmp_path / "pods", {"http://object-store:8333": _moto})
    settings = (
        f"data.source={data} model.source={model} train.epochs=1 data.max_length=64 tracking.uri=file:{tmp_path}/mlruns"
    )
    with kwok.closed(kube), node.running():
        code, out, error = call(submit, "train", "--set", settings)
        logs = "\n".join(file.read_text(errors="replace")[-3000:] for file in (tmp_path / "pods").glob("*.log"))
        assert code == 0, f"{out}\n{error}\n{logs}"
        run_id = kube.items(JOBS)[0]["metadata"]["name"]
        assert kube.ask("GET", path(NAMESPACE, "rayjobs", run_id))["status"]["jobStatus"] == "SUCCEEDED"
        assert Run.open(Storage(place), run_id).finished
        code, _, _ = call(manage, "fetch", "--run", run_id, "--output", str(tmp_path / "mine"))
        assert code == 0 and (tmp_path / "mine" / "model" / "manifest.json").is_file()
        helm.remove(run_id)
        kube.wait_gone(JOBS)
