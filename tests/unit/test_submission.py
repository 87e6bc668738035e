"""What leaves this machine for a cluster: input by its content, values for the chart, facts of an environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import settings
from jobs.cluster import profile, uploads, values
from jobs.cluster.helm import explain
from jobs.cluster.profile import Profile
from jobs.errors import EnvironmentNotReady, HaetsalError, RemoteError, UsageError
from jobs.events import Event
from jobs.run_lock import Holder
from jobs.run_state import judge, line, progress
from jobs.runs import End
from jobs.storage import Storage

AT = Profile(kube_context="kind-haetsal", storage_root="s3://b/artifacts")


def found(value: str) -> list[uploads.Upload]:
    return [u for u in uploads.find(settings.load(None, f"data.source='{value}'")) if u.key == "data.source"]


def test_local_input_is_found_by_file_folder_and_pattern(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.jsonl", "b.txt", "sub/c.jsonl", ".hidden.jsonl"):
        (tmp_path / name).write_text(name)

    assert set(found(str(tmp_path / "a.jsonl"))[0].files) == {"a.jsonl"}
    assert set(found(str(tmp_path))[0].files) == {"a.jsonl", "b.txt", "sub/c.jsonl"}
    assert set(found(str(tmp_path / "*.jsonl"))[0].files) == {"a.jsonl"}
    assert set(found(str(tmp_path / "**" / "*.jsonl"))[0].files) == {"a.jsonl", "sub/c.jsonl"}
    for remote in ("s3://bucket/rows.jsonl", "hf:org/rows", "org/model", str(tmp_path / "none.jsonl")):
        assert found(remote) == []


def test_lists_of_input_go_one_by_one(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    tree = settings.load(None, f"corpus.source=['{tmp_path}/a.txt','s3://b/x','{tmp_path}/b.txt']")

    sources = uploads.find(tree)
    moved = uploads.rewritten(tree, sources, Storage(str(tmp_path / "storage")))

    assert [source.key for source in sources] == ["corpus.source.0", "corpus.source.2"]
    assert moved.corpus.source[1] == "s3://b/x"
    assert moved.corpus.source[2].endswith(f"{sources[1].digest}/files/b.txt")


def test_input_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        (tmp_path / folder / "rows.jsonl").write_text("same")
    one, two = (found(str(tmp_path / folder))[0] for folder in ("one", "two"))
    assert one.digest == two.digest
    (tmp_path / "two" / "rows.jsonl").write_text("different")
    assert found(str(tmp_path / "two"))[0].digest != one.digest


def test_input_is_sent_once_and_read_from_where_it_went(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "data" / name).write_text(f'{{"text": "{name} 안녕하세요"}}\n')
    storage = Storage(str(tmp_path / "storage"))
    tree = settings.load(None, f"data.source={tmp_path / 'data'}")
    sources = uploads.find(tree)

    assert [uploads.send(source, storage) for source in sources] == [True]
    assert [uploads.send(source, storage) for source in sources] == [False]

    moved = uploads.rewritten(tree, sources, storage)
    from jobs.dataset.reading import read_rows

    assert len(read_rows(moved.data)) == 2  # the manifest beside the files is no data
    assert moved.model_dump(exclude={"data"}) == tree.model_dump(exclude={"data"})


@pytest.mark.parametrize(
    ("overrides", "workers", "pod"),
    [
        ("scaling.workers=2 scaling.gpus_per_worker=1 scaling.cpus_per_worker=7", 2, {"cpu": "7", "gpus": 1}),
        ("scaling.workers=1 scaling.gpus_per_worker=8 scaling.cpus_per_worker=96", 1, {"cpu": "96", "gpus": 8}),
        ("scaling.workers=5 scaling.gpus_per_worker=0.5 scaling.cpus_per_worker=3", 3, {"cpu": "6", "gpus": 1}),
        ("scaling.workers=3 scaling.cpus_per_worker=0.5", 3, {"cpu": "0.5", "gpus": 0}),
    ],
)
def test_pods_follow_from_workers(overrides: str, workers: int, pod: dict[str, object]) -> None:
    made = values.make("train", settings.load(None, overrides), "x: 1", AT)

    assert made["workers"] == {"training": {"min": workers, "max": workers}}
    assert made["ray"]["workerGroups"]["training"] == pod
    assert made["serviceAccount"] == "train"


def test_evaluation_works_where_the_gpu_is() -> None:
    tree = settings.load(None, "scaling.workers=1 scaling.cpus_per_worker=4 scaling.gpus_per_worker=1")
    assert values.make("evaluate", tree, "x: 1", AT)["driver"] == {"cpus": 4, "gpus": 1}
    assert values.make("train", tree, "x: 1", AT)["driver"] == {}


def test_a_pipeline_evaluates_in_its_driver_and_trains_beside_it() -> None:
    given = "scaling.workers=1 scaling.cpus_per_worker=4 scaling.gpus_per_worker=1 tune.max_concurrent=3"
    for searches, pods in (("true", 4), ("false", 2)):
        made = values.make("pipeline", settings.load(None, f"{given} release.tune={searches}"), "x: 1", AT)
        assert made["driver"] == {"cpus": 4, "gpus": 1}
        assert made["workers"] == {"training": {"min": pods, "max": pods}}


def test_preprocessing_takes_its_own_pods_and_a_shared_cluster_none() -> None:
    tree = settings.load(None, "scaling.workers=4")
    made = values.make("tune", settings.load(None, "scaling.workers=1 tune.max_concurrent=3"), "x: 1", AT)
    assert made["workers"] == {"training": {"min": 3, "max": 3}}
    made = values.make("preprocess", tree, "x: 1", AT)
    assert made["workers"] == {"preprocessing": {"min": 1, "max": 4}} and made["serviceAccount"] == "preprocess"
    made = values.make("train", tree, "x: 1", AT.model_copy(update={"shared_cluster": "haetsal"}))
    assert (made["workers"], made["sharedCluster"], made["retries"], "ray" in made) == ({}, "haetsal", 0, False)


def test_profiles_of_this_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kind = profile.load("kind", "dev")
    assert kind.base["storage"] == {"root": kind.storage_root}
    (tmp_path / "values-kind.yaml").touch()
    monkeypatch.setattr(profile, "ROOT", tmp_path)
    (tmp_path / ".haetsal" / "platform").mkdir(parents=True)
    from terraform.platform_facts import write

    write("dev", tmp_path / ".haetsal" / "platform" / "dev.json")
    aws = profile.load("aws", "dev")
    assert aws.kube_context == "haetsal-dev" and aws.storage_root.startswith("s3://haetsal-dev-artifacts-")
    assert aws.registry and aws.registry.endswith(".amazonaws.com/haetsal-dev")
    tree = settings.load(None, "train.epochs=3", aws.base)
    assert tree.scaling.gpus_per_worker == 1
    assert tree.cost.usd_per_hour["training"] == 1.49 and tree.cost.month_budget_usd == 1500  # g5.2xlarge, dev.yaml


def test_configuration_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAETSAL_CONFIG", "train: {epochs: 7}")
    assert settings.load(Path("env:HAETSAL_CONFIG")).train.epochs == 7
    monkeypatch.setenv("HAETSAL_CONFIG", "[1")
    with pytest.raises(UsageError, match="environment variable HAETSAL_CONFIG: not valid YAML"):
        settings.load(Path("env:HAETSAL_CONFIG"))


@pytest.mark.parametrize(
    ("said", "kind", "sentence"),
    [
        ('Error: INSTALLATION FAILED: admission webhook "v.example.com" denied the request: no', EnvironmentNotReady,
         "webhook v.example.com refuses it: no"),
        ('Error: unable to build kubernetes objects: no matches for kind "RayJob" in version "ray.io/v1" ensure CRDs'
         " are installed first", EnvironmentNotReady, "has no RayJobs; `make crds`"),
        ("Error: execution error at (ray-job/templates/config.yaml:1:4): workers: names no worker group", UsageError,
         "charts/ray-job refuses its values: workers: names no worker group"),
        ('Error: RayJob.ray.io "x" is invalid: spec.retries: Invalid value', UsageError, "API server refuses the run"),
        ("Error: context deadline exceeded", RemoteError, "helm: context deadline exceeded"),
    ],
)  # fmt: skip
def test_words_of_helm(said: str, kind: type[HaetsalError], sentence: str) -> None:
    error = explain(said, AT)
    assert type(error) is kind and sentence in str(error) and "\n" not in str(error)


HERE, ELSEWHERE = Holder(7, "a", is_here=True), Holder(7, "b", is_here=False)


@pytest.mark.parametrize(
    ("state", "finished", "held", "end"),
    [
        ("finished", True, None, None),
        ("finished", True, HERE, End("Diverged", "nan", 5)),
        ("running", False, HERE, End("Interrupted", "stopped", 130)),
        ("running", False, ELSEWHERE, None),
        ("stopped", False, None, End("Interrupted", "stopped", 130)),
        ("failed", False, None, End("Diverged", "nan", 5)),
        ("interrupted", False, None, None),
    ],
)
def test_states_of_runs_here(state: str, finished: bool, held: Holder | None, end: End | None) -> None:
    assert judge(finished=finished, held=held, end=end, finding=None) == state


def test_progress_and_lines_of_events() -> None:
    events = [
        Event(1, 0.0, "submitted", {"profile": "kind"}),
        Event(2, 0.0, "phase", {"name": "load", "seconds": 1.25}),
        Event(3, 0.0, "metrics", {"step": 5, "steps": 60, "values": {"loss": 2.5}}),
        Event(4, 0.0, "metrics", {"step": 6, "steps": 60, "values": {"eval_loss": 2.25}}),
        Event(5, 0.0, "checkpoint", {"step": 6, "name": "step-000006", "eval_loss": 2.25}),
        Event(6, 0.0, "failed", {"type": "Diverged", "reason": "loss is nan"}),
    ]
    assert str(progress(events)) == "6/60  loss 2.500"
    assert progress(events[:2]) is None
    assert [line(event).split(" ", 1)[1] for event in events] == [
        "submitted", "load took 1.2 s", "step 5/60  loss 2.5", "step 6/60  eval_loss 2.25",
        "checkpoint step-000006, held-out loss 2.2500", "failed: loss is nan",
    ]  # fmt: skip
