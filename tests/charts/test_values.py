"""Values: documented, closed, and told in one sentence when they are wrong."""

import json

import pytest
import yaml

from charts import values_schema
from terraform.addons import values as addons
from terraform.node_pool import WORKLOADS
from tests.charts.cases import AWS, CONFIG, FIXED, QUEUED, SHARED
from tests.charts.helm import CHARTS, RUN, Refused

NAMES = ("ray-lib", "ray-job", "haetsal")
PASSED_AWS = addons.Aws(
    "haetsal-dev",
    "ap-northeast-2",
    "registry/haetsal-dev",
    "data",
    "artifacts",
    "backups",
    "db",
    "arn:aws:secretsmanager:x",
    {"training": 1.49, "inference": 0.99},
    1500,
)


@pytest.mark.parametrize("chart", NAMES)
def test_schema_and_readme_are_made_from_the_values(chart):
    for path, text in values_schema.outputs(CHARTS / chart).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old; run `make charts`"


@pytest.mark.parametrize("chart", NAMES)
def test_every_value_is_documented(chart):
    _, values = values_schema.read(CHARTS / chart / "values.yaml")
    maps = [value.path for value in values if value.is_map]
    for value in values:
        inside = next((path for path in maps if value.path[: len(path)] == path and len(value.path) > len(path)), None)
        if inside and value.path[len(inside)] != first_key(values, inside):
            continue  # documented at the first entry of the map
        section = any(other.path[:-1] == value.path for other in values)
        assert value.description or section, ".".join(value.path)


def first_key(values: list[values_schema.Value], path: tuple[str, ...]) -> str:
    return next(value.path[-1] for value in values if value.path[:-1] == path)


@pytest.mark.parametrize("chart", NAMES)
def test_the_schema_is_closed_at_every_level(chart):
    def walk(node: object, where: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and where.rpartition(".")[2] not in ("global", "ray"):
                assert "additionalProperties" in node, where
            for key, value in node.items():
                walk(value, f"{where}.{key}")

    walk(json.loads((CHARTS / chart / "values.schema.json").read_text(encoding="utf-8")), chart)


def test_both_charts_are_the_same_size_on_kind():
    ours, runs = (yaml.safe_load((CHARTS / c / "values-kind.yaml").read_text()) for c in ("haetsal", "ray-job"))
    assert ours["ray"] == runs["ray"]
    assert {k: ours["storage"][k] for k in runs["storage"]} == runs["storage"]


@pytest.mark.parametrize("aws", [PASSED_AWS, None], ids=["aws", "kind"])
def test_the_chart_takes_what_the_add_ons_stack_passes(aws, helm):
    helm.render("haetsal", addons.platform(aws))


def test_worker_groups_select_the_pools_that_terraform_makes():
    groups = yaml.safe_load((CHARTS / "ray-lib" / "values.yaml").read_text())["workerGroups"]
    assert {name: group["pool"] for name, group in groups.items()} == {
        name: workload.node_type for name, workload in WORKLOADS.items() if name != "system"
    }
    assert {name: group["gpus"] > 0 for name, group in groups.items()} == {name: WORKLOADS[name].gpu for name in groups}


def training(**changes: object) -> dict:
    return {"ray": {"workerGroups": {"training": changes}}}


JOB, PLATFORM = "ray-job", "haetsal"
BAD = {
    "wrong type": (JOB, FIXED | {"retries": "two"}, "at '/retries': got string, want integer"),
    "wrong type in the library": (JOB, FIXED | training(gpus="one"), "training/gpus': got string, want integer"),
    "unknown key": (JOB, FIXED | {"retrys": 1}, "additional properties 'retrys' not allowed"),
    "unknown key below": (
        PLATFORM,
        AWS | {"network": {"https_": []}},
        "'/network': additional properties 'https_' not allowed",
    ),
    "unknown key in the library": (JOB, FIXED | training(gpu=1), "additional properties 'gpu' not allowed"),
    "half a worker group": (
        JOB,
        FIXED | {"ray": {"workerGroups": {"mine": {"cpu": "1"}}}},
        "missing properties 'image', 'memory'",
    ),
    "a number with a unit it has not": (JOB, FIXED | training(memory="4 GB"), "'4 GB' does not match pattern"),
    "argument that a shell would read": (JOB, FIXED | {"arguments": ["$(id)"]}, "does not match pattern"),
    "unknown job": (JOB, FIXED | {"job": "trian"}, "value must be one of 'preprocess', 'train'"),
    "ttl and rules": (
        JOB,
        FIXED
        | {
            "cleanup": {
                "ttlSeconds": 5,
                "deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}],
            }
        },
        "cleanup: ttlSeconds and deletionRules exclude each other; set one of them",
    ),
    "queue and rules": (
        JOB,
        QUEUED | {"cleanup": {"deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]}},
        "cleanup.deletionRules: Kueue needs the ttl form; set cleanup.ttlSeconds instead",
    ),
    "queue and autoscaling": (
        JOB,
        QUEUED | {"workers": {"training": {"min": 0, "max": 2}}},
        "workers: Kueue admits clusters of fixed size; set min equal to max, or leave queue empty",
    ),
    "min above max in a run": (
        JOB,
        FIXED | {"workers": {"training": {"min": 3, "max": 2}}},
        "workers.training: min 3 is above max 2; raise max or lower min",
    ),
    "min above max in a group": (
        PLATFORM,
        AWS | training(min=9),
        "ray.workerGroups.training: min 9 is above max 4; raise max or lower min",
    ),
    "min above max in the gateway": (PLATFORM, AWS | {"gateway": {"min": 9}}, "gateway: min 9 is above max 8"),
    "gpu group without gpus": (
        PLATFORM,
        AWS | training(gpus=0),
        "ray.workerGroups.training: image gpu needs gpus of at least 1, or set image: cpu",
    ),
    "gpus that nothing uses": (JOB, FIXED | training(image="cpu"), "gpus 1 would be idle under image cpu"),
    "gpu nodes without gpus": (JOB, FIXED | training(image="cpu", gpus=0), "pool gpu-training has GPU nodes"),
    "no settings": (JOB, FIXED | {"config": ""}, "config: is empty; pass the run's settings file with --set-file"),
    "no workers": (JOB, {"config": CONFIG}, "workers: names no worker group"),
    "unknown workers": (
        JOB,
        {"config": CONFIG, "workers": {"x": {"min": 1, "max": 1}}},
        "has inference, preprocessing, training",
    ),
    "workers of a shared cluster": (
        JOB,
        SHARED | {"workers": FIXED["workers"]},
        "workers: the run takes the workers of haetsal",
    ),
    "retries on a shared cluster": (JOB, SHARED | {"retries": 1}, "retries: every retry is a new cluster"),
    "queue on a shared cluster": (JOB, SHARED | {"queue": "runs"}, "queue: Kueue admits clusters"),
    "deadlines in the wrong order": (
        JOB,
        FIXED | {"deadlines": {"startSeconds": 90, "runSeconds": 60}},
        "runSeconds 60 includes the wait",
    ),
    "head outlives record": (JOB, FIXED | {"cleanup": {"keepRecordSeconds": 60}}, "the head cannot outlive the record"),
    "gateway without serving": (PLATFORM, AWS | {"gateway": {"enabled": True}}, "engine: has nothing to forward to"),
    "store on aws": (PLATFORM, AWS | {"objectStore": {"enabled": True}}, "objectStore: is for kind"),
    "database without its secret": (
        PLATFORM,
        AWS | {"tracking": {"database": "postgresql://mlflow@db/mlflow"}},
        "tracking: database and databaseSecret belong together",
    ),
    "backup to nowhere": (PLATFORM, AWS | {"storage": {"backups": ""}}, "needs storage.backups, an s3:// address"),
    "bucket without s3": (PLATFORM, AWS | {"storage": {"root": "artifacts"}}, "'artifacts' does not match pattern"),
    "drill in the platform": (
        PLATFORM,
        AWS | {"operations": {"drillNamespace": "haetsal"}},
        "the drill deletes what it restored",
    ),
    "quota of no group": (
        PLATFORM,
        AWS | {"queues": {"enabled": True, "quotas": {"x": {"cpu": "1", "memory": "1Gi", "gpus": 0}}}},
        "queues.quotas.x: there is no such worker group",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_told_in_one_sentence(name, helm):
    chart, values, sentence = BAD[name]
    with pytest.raises(Refused) as refused:
        helm.text(chart, values)
    telling = [line for line in str(refused.value).splitlines() if sentence in line]
    assert len(telling) == 1, refused.value


@pytest.mark.parametrize("release", [RUN + "-and-so-much-more-of-it", "9-runs", "train-"])
def test_a_name_that_kubernetes_refuses(release, helm):
    with pytest.raises(Refused, match=r"at most 47 characters|release name .* is invalid|invalid release name"):
        helm.text("ray-job", FIXED, release=release)


def test_the_longest_name_is_47_characters(helm):
    helm.text("ray-job", FIXED, release="r" * 47)
    with pytest.raises(Refused, match="at most 47 characters"):
        helm.text("ray-job", FIXED, release="r" * 48)
