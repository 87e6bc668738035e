"""The plant, started once: half a minute and more, so its tests are `long`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apiserver
import boto3
import httpx
import pytest
import rayapi
import tiny
import torch
import yaml
from moto.server import ThreadedMotoServer
from platform_under_test import Platform, point_at

from jobs.serving.gateway.keys import Keys
from tests.gateway.processes import engine, gateway
from tests.local.commands import conversations
from tests.observe import plant
from tests.observe.plant import Head, Prometheus

_LABELS = {"namespace": "haetsal", "pod": "plant", "ray_io_cluster": "plant", "ray_io_group": "inference"}


@dataclass(frozen=True)
class Plant:
    """What the tests look at, when everything has run and was scraped."""

    prometheus: Prometheus
    head: Head
    ray_text: str
    """What the head exported while the run and the study worked, all of it together."""
    runs: list[str]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model and forty conversations."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = tiny.tokenizer()
    torch.manual_seed(7)
    tiny.model(len(tokenizer)).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in conversations(40))
    (folder / "data.jsonl").write_text(rows, encoding="utf-8")
    return folder / "tiny", folder / "data.jsonl"


def _jobs(head: Head, model: Path, data: Path, root: Path) -> None:
    """A run and a study of two trials, on the cluster, with prices."""
    common = {
        "model.source": model, "data.source": data, "storage.root": root, "model.dtype": "float32", "lora.rank": 4,
        "data.max_length": 96, "train.batch_size": 4, "scaling.workers": 1, "eval.generations": 0,
        "cost.run_budget_usd": 100, "cost.usd_per_hour.training": 36,
    }  # fmt: skip
    given = " ".join(f"{key}={value}" for key, value in common.items())
    # Long enough that a second's worth of reports is seen of everything.
    head.driver("-m", "jobs.train", "--set", f"{given} train.max_steps=240 train.checkpoint_every_steps=40")
    space = "tune.space.train.learning_rate.choices=[0.01,0.02]"
    study = f"{given} train.max_steps=24 tune.samples=2 tune.max_concurrent=1 tune.evaluations=4 {space}"
    head.driver("-m", "jobs.tune", "--set", study)


def _load(url: str, key: str) -> None:
    """What each variant, a shadow, feedback, refusals and a backend that is away look like."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30, verify=False) as client:
        for number in range(60):
            words = "cut=3 tokens=8" if number % 20 == 7 else "tokens=4 delay_ms=5"
            for model in ("haetsal", "half-gone"):
                body = {"model": model, "stream": number % 2 == 0 or "cut" in words, "user": f"user-{number}"}
                answer = client.post(
                    "/v1/chat/completions", json=body | {"messages": [{"role": "user", "content": words}]}
                )
                if answer.status_code == 200:
                    thumb = {"request_id": answer.headers["x-request-id"], "thumb": "up" if number % 3 else "down"}
                    client.post("/v1/feedback", json=thumb)
            time.sleep(0.1)
        client.post("/v1/chat/completions", json={"model": "nobody", "messages": []})


def _operations(platform: Platform, root: Path, mounted: Path) -> None:
    """All operations, and their ConfigMap as the kubelet would mount it."""
    more = {"runs__root": str(root), "cost__month_budget_usd": 1500, "cost__usd_per_hour__training": 36}
    it = platform.with_(**more, cost__usd_per_hour__inference=18)
    for name in ("backup", "drill", "retention", "cost"):
        done = it.run(name)
        assert done.code == 0, (name, done.err)
    done = it.run("health", "--repair", "--watch", "0.1")
    assert done.code == 0, done.err
    status = platform.namespace.get("ConfigMap", "haetsal-ops-status")
    assert status
    for name, text in status["data"].items():
        (mounted / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def grown(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Everything has worked for a while and is still there."""
    if plant.PROMETHEUS is None:
        pytest.skip("prometheus is not installed; Debian has it in the package of that name")
    folder, root = tmp_path_factory.mktemp("plant"), tmp_path_factory.mktemp("root")
    mounted = tmp_path_factory.mktemp("mounted")
    model, data = inputs
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        head = stack.enter_context(plant.head(folder))
        exporter = stack.enter_context(plant.exporter(mounted))
        one, two = (stack.enter_context(engine(folder, name)) for name in ("one", "two"))
        keys, key = Keys().with_new("tests", datetime.now(UTC), timedelta())
        tree = keys.model_dump(mode="json")
        tree["keys"]["tests"]["requests_per_minute"] = None
        (folder / "keys.yaml").write_text(yaml.safe_dump(tree))
        front = stack.enter_context(gateway(folder, _routes(one.url, two.url)))
        address = front.url.removeprefix("http://")
        targets = {
            "ray": [head.metrics],
            "autoscaler": [head.autoscaler],
            "gateway": [address],
            "operations": [exporter],
        }
        prometheus = stack.enter_context(plant.prometheus(folder, targets, _LABELS))
        serving = stack.enter_context(_serving(head, model, root, folder))
        _load(front.url, key)
        _jobs(head, model, data, root)
        _operations(_platform(stack, patch, folder), root, mounted)
        (folder / "gateway.yaml").write_text("models: 1")
        for name in ("haetsal_cost_month_usd", "haetsal_gateway_config_refused == 1", "ray_haetsal_tune_best_loss"):
            plant.wait_for(lambda query=name: prometheus.returns_data(query), name)
        plant.wait_for(lambda: prometheus.returns_data("increase(haetsal_health_repairs_total[1d])"), "two scrapes")
        assert serving.poll() is None, (folder / "serving.log").read_text()[-2000:]
        yield Plant(prometheus, head, head.text(), sorted(path.name for path in (root / "runs").glob("*-*-*-*")))


def _routes(one: str, two: str) -> dict[str, object]:
    gone = f"http://127.0.0.1:{plant.free_port()}"
    return {
        "keys_file": "keys.yaml",
        "backends": {
            "one": {"urls": [one], "model": "engine-one"},
            "two": {"urls": [two], "model": "engine-two"},
            "gone-then-one": {"urls": [gone, one], "model": "engine-one"},
            "gone": {"urls": [gone], "model": "nobody"},
        },
        "models": {
            "haetsal": {
                "variants": [{"name": "champion", "backend": "one"}, {"name": "challenger", "backend": "two"}],
                "shadow": {"backend": "two", "fraction": 1},
            },
            "half-gone": {
                "variants": [{"name": "champion", "backend": "gone-then-one"}, {"name": "lost", "backend": "gone"}]
            },
        },
        "feedback": {"address": "feedback"},
        "timeouts": {"first_byte_s": 5, "answer_s": 5, "idle_s": 5},
    }


def _serving(head: Head, model: Path, root: Path, folder: Path) -> subprocess.Popen[str]:
    """The Serve application, under a little load until its standard input is closed."""
    log = (folder / "serving.log").open("w")
    command = [sys.executable, "tests/observe/serving.py", str(model), str(root)]
    return subprocess.Popen(
        command, cwd=plant.ROOT, env=head.environ, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
    )


def _platform(stack: ExitStack, patch: pytest.MonkeyPatch, folder: Path) -> Platform:
    kube = stack.enter_context(apiserver.serve(folder))
    rayapi.install(kube, *(rayapi.crd(kind, spec) for kind, spec in rayapi.SPECS.items()))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    stack.callback(server.stop)
    host, port = server.get_host_and_port()
    point_at(f"http://{host}:{port}", patch)
    boto3.client("s3").create_bucket(Bucket="backups")
    patch.setenv("KUBECONFIG", str(kube.kubeconfig(folder / "kubeconfig")))
    return Platform.make(kube, "haetsal-plant", "s3://backups/haetsal", folder)
