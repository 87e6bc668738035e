"""A run's whole life on a cluster: a real API server and a real helm; operator, kubelet and job are the tests'."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from api_server import NAMESPACE
from cluster_side import Kubelet, Operator, alongside
from conftest import change_profile
from kubernetes.client import ApiException

from jobs import manage, settings, submit
from jobs.cluster.helm import Helm
from jobs.runs import EventLog, Run
from jobs.storage import Storage


def work(root: str, run_id: str, reach: int, *, finish: bool) -> None:
    """What the job in the pods does to the run directory."""
    run = Run.attempt(Storage(root), run_id, "")
    with run.lock(), EventLog(run) as events:
        for step in range(1, reach + 1):
            events.append("metrics", step=step, steps=4, values={"loss": 4.0 - step / 2})
        if finish:
            model = Path(os.environ["XDG_CACHE_HOME"]) / "model"
            model.mkdir(parents=True)
            (model / "adapter.safetensors").write_bytes(b"weights" * 100)
            run.publish(model, "model")
    if finish:
        run.finish({"eval_loss": 2.0})


def test_detach_attach_and_finish(
    place: str, helm: Helm, operator: Operator, node: Kubelet, call, data: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    made: list[str] = []

    def until_ctrl_c() -> None:
        made.append(operator.next_job())
        operator.cluster(made[0], "abcde")
        operator.status(made[0], "Running", "RUNNING")
        operator.submitter(made[0])
        node.cut_after = 1
        node.write("loading the model")
        node.write("training")
        node.was_read()
        assert node.cut_after is None
        os.kill(os.getpid(), signal.SIGINT)

    with alongside(until_ctrl_c):
        code, out, error = call(submit, "train", "--set", f"data.source={data} train.epochs=1")
        assert code == 130, error
    (run_id,) = made
    assert "detached; the run goes on" in error and f"make logs RUN={run_id} PROFILE=kind FOLLOW=1" in error

    job = operator.job(run_id)
    assert job["spec"]["entrypoint"] == f"python -m jobs.train --config /etc/haetsal/config.yaml --run-id {run_id}"
    config = operator.core.read_namespaced_config_map(run_id, NAMESPACE).data["config.yaml"]
    tree = settings.from_yaml(config, "config map")
    assert tree.data.source.startswith(f"{place}/inputs/") and tree.scaling.workers == 1 and tree.train.epochs == 1
    sent = tree.data.source.removeprefix(f"{place}/")
    assert Storage(place).read(sent) == data.read_bytes()
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in config and secret not in yaml.safe_dump(job)

    code, out, _ = call(manage, "runs")
    assert code == 0 and "running" in out and f"kind: rayjob haetsal/{run_id}" in out

    def until_the_end() -> None:
        work(place, run_id, reach=4, finish=True)
        node.write("held-out perplexity 9.1 -> 7.4")
        node.end()
        operator.status(run_id, "Complete", "SUCCEEDED")

    with alongside(until_the_end):
        code, out, _ = call(manage, "logs", "--run", run_id, "--follow")
    assert code == 0
    shown = [line for line in out.splitlines() if not line[:2].isdigit()]
    assert shown[:3] == ["loading the model", "training", "held-out perplexity 9.1 -> 7.4"]  # once each, after a cut

    code, out, _ = call(manage, "status", "--run", run_id)
    assert code == 0 and "finished" in out and "4/4  loss 2.000" in out
    code, out, _ = call(manage, "fetch", "--run", run_id, "--output", str(tmp_path / "mine"))
    assert code == 0 and (tmp_path / "mine" / "model" / "adapter.safetensors").read_bytes() == b"weights" * 100
    code, _, error = call(manage, "stop", "--run", run_id)
    assert code == 2 and "is finished already" in error
    helm.remove(run_id)


def test_stop_and_resume_with_its_own_exit_code(
    place: str, helm: Helm, operator: Operator, call, said: Callable[[str], None], data: Path
) -> None:  # type: ignore[no-untyped-def]
    made: list[str] = []

    def detach() -> None:
        made.append(operator.next_job())
        operator.status(made[0], "Running", "RUNNING")
        said("runs")
        os.kill(os.getpid(), signal.SIGINT)

    with alongside(detach):
        call(submit, "train", "--set", f"data.source={data}")
    run_id = made[0]
    code, _, error = call(submit, "train", "--resume", run_id)
    assert code == 2 and "is at work (runs)" in error

    code, out, _ = call(manage, "stop", "--run", run_id)
    assert code == 0 and f"make resume RUN={run_id} PROFILE=kind" in out
    with pytest.raises(ApiException, match="Not Found"):
        operator.job(run_id)
    assert "stopped" in call(manage, "runs")[1]
    assert "stopped by make stop" in call(manage, "logs", "--run", run_id)[1]

    def fail() -> None:
        operator.next_job()
        operator.status(run_id, "Running", "RUNNING")
        operator.status(run_id, "Retrying", failed=1)
        message = "Job entrypoint command failed with exit code 5, last available logs (truncated to 20,000 chars):\n"
        operator.status(run_id, "Failed", "FAILED", reason="AppFailed", message=message)

    with alongside(fail):
        code, out, error = call(manage, "resume", "--run", run_id)
    assert code == 5 and f"error: {run_id}: the job ended with exit code 5" in error
    helm.remove(run_id)


def test_what_keeps_a_run_from_starting(
    place: str, profiles: Path, helm: Helm, operator: Operator, call, data: Path
) -> None:  # type: ignore[no-untyped-def]
    operator.core.patch_namespace(
        NAMESPACE, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )

    def refuse() -> None:
        run_id = operator.next_job()
        cluster = operator.cluster(run_id, "abcde")
        try:
            operator.pod(f"{cluster}-head", {"ray.io/cluster": cluster}, {})
        except ApiException as error:
            said = json.loads(error.body)["message"]
            operator.warn("RayCluster", cluster, "FailedToCreateHeadPod", f"Failed to create head Pod: {said}")

    try:
        with alongside(refuse):
            code, _, error = call(submit, "train", "--set", f"data.source={data}")
    finally:
        operator.core.patch_namespace(NAMESPACE, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}})
    assert code == 3 and 'cannot start: Pod Security "restricted:latest' in error and "It was taken back" in error
    assert not operator.custom.list_namespaced_custom_object("ray.io", "v1", NAMESPACE, "rayjobs")["items"]

    change_profile(profiles, start_deadline_s=3)
    said = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match node selector."

    def starve() -> None:
        run_id = operator.next_job()
        cluster = operator.cluster(run_id, "fghij")
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
        operator.pod(f"{cluster}-w", {"ray.io/cluster": cluster}, {"phase": "Pending", "conditions": [condition]})

    with alongside(starve):
        code, _, error = call(submit, "train", "--set", f"data.source={data}")
    assert code == 3 and "did not start within 3 s: no node has enough nvidia.com/gpu for" in error


def test_operator_that_is_away(place: str, helm: Helm, operator: Operator, call, data: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, error = call(submit, "train", "--set", f"data.source={data}")

    assert code == 3
    assert "no answer within 2 s: no KubeRay operator is installed on this cluster" in error
    assert not operator.custom.list_namespaced_custom_object("ray.io", "v1", NAMESPACE, "rayjobs")["items"]
