"""The panels that need a GPU, and the metric that does, against a real Prometheus while a run trains on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from charts.boards import BOARDS, Board, Panel
from tests.observe import plant
from tests.observe.plant import Prometheus, as_asked

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(plant.PROMETHEUS is None, reason="prometheus is not installed; Debian has it"),
    pytest.mark.timeout(600),
]
PANELS = [(board, panel) for board in BOARDS for panel in board.panels if panel.needs_gpu]
_LABELS = {"namespace": "haetsal", "pod": "plant", "ray_io_cluster": "plant", "ray_io_group": "training"}


@pytest.fixture(scope="module")
def trained(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """What was scraped while one worker trained for some twenty seconds."""
    folder = tmp_path_factory.mktemp("plant")
    settings = (
        f"model.source={wide_model} storage.root={tmp_path_factory.mktemp('root')} lora.rank=16 data.max_length=1024 "
        "train.batch_size=4 train.max_steps=120 train.checkpoint_every_steps=60 train.learning_rate=1e-4 "
        "eval.max_rows=4 eval.batch_size=2 eval.generations=0 scaling.workers=1 scaling.gpus_per_worker=1"
    )
    with plant.head(folder) as head, plant.prometheus(folder, {"ray": [head.metrics]}, _LABELS) as prometheus:
        head.driver("-m", "jobs.train", "--set", settings)
        plant.wait_for(lambda: prometheus.returns_data("ray_haetsal_train_mfu_ratio"), "the run's metrics")
        yield prometheus


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{b.name}: {p.title}" for b, p in PANELS])
def test_every_query_of_a_panel_that_needs_a_gpu_returns_data(trained: Prometheus, board: Board, panel: Panel) -> None:
    for expression, _legend in panel.queries:
        query = as_asked(expression)
        plant.wait_for(lambda query=query: trained.returns_data(query), query, within_s=60)


@pytest.mark.parametrize(
    "query",
    [
        "ray_haetsal_train_mfu_ratio > 0.02 and ray_haetsal_train_mfu_ratio < 1.2",
        "ray_node_gpus_utilization > 20 and ray_node_gpus_utilization <= 100",
        "sum(ray_node_gram_used) > 6000",  # MiB; the weights alone
        'sum(ray_resources{Name="GPU", State="USED"}) == 1',
    ],
)
def test_figures_are_those_of_a_gpu_at_work(trained: Prometheus, query: str) -> None:
    assert trained.returns_data(query), {name: trained.series(name) for name in trained.names() if "gpu" in name}


def test_the_metric_that_needs_a_gpu_names_its_run(trained: Prometheus) -> None:
    (labels,) = trained.series("ray_haetsal_train_mfu_ratio")
    assert labels["run"].startswith("train-")
