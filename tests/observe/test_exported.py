"""The table of metrics against what real processes export, and every panel of every dashboard against Prometheus."""

from __future__ import annotations

import json
import re

import pytest

from charts.boards import BOARDS, Board, Panel
from charts.dashboards import files
from jobs.metrics.definitions import DEFINITIONS, LABELS, PREFIX, Metric
from tests.observe.plant import as_asked, wait_for

pytestmark = pytest.mark.long

_OF_PROMETHEUS = {"__name__", "instance", "job", "le", "namespace", "pod", "ray_io_cluster", "ray_io_group"}
_OF_RAY = {
    "Component", "NodeAddress", "SessionName", "Version", "WorkerId", "otel_scope_name", "otel_scope_schema_url",
    "otel_scope_version",
}  # fmt: skip
_ABSENT_HERE = {"train_mfu_ratio"}
"""What needs a GPU: tests/gpu."""


def series_name(metric: Metric) -> str:
    """Of a histogram: its count."""
    return f"{metric.exported}_count" if metric.kind == "histogram" else metric.exported


@pytest.mark.parametrize("metric", [m for m in DEFINITIONS if m.name not in _ABSENT_HERE], ids=lambda m: m.name)
def test_what_the_table_promises_is_exported_with_its_labels(grown, metric: Metric) -> None:
    found = grown.prometheus.series(series_name(metric))
    assert found, f"{metric.exported} was never scraped"
    exported = {label for labels in found for label in labels}  # Prometheus leaves out a label that is empty
    assert exported - _OF_PROMETHEUS - _OF_RAY == set(metric.labels)


def test_nothing_of_ours_is_exported_that_the_table_does_not_have(grown) -> None:
    ours = {name for name in grown.prometheus.names() if PREFIX in name}
    parts = ("", "_bucket", "_count", "_sum", "_created")
    assert (
        ours - {metric.exported.removesuffix("_total") + part for metric in DEFINITIONS for part in (*parts, "_total")}
        == set()
    )


def test_labels_hold_names_from_files_and_nothing_of_requests(grown) -> None:
    """Sixty users, and as many requests as series would have with any of them in a label."""
    values: dict[str, set[str]] = {label: set() for label in LABELS}
    for metric in DEFINITIONS:
        for labels in grown.prometheus.series(series_name(metric)):
            for label in metric.labels:
                values[label].add(labels.get(label, ""))
    assert values["model"] == {"haetsal", "half-gone", ""}
    assert values["variant"] <= {"champion", "challenger", "lost", ""}
    assert values["key"] <= {"tests", ""}
    assert values["run"] <= set(grown.runs)
    assert all(len(found) <= 12 for found in values.values()), values


PANELS = [(board, panel) for board in BOARDS for panel in board.panels if not panel.needs_gpu]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{b.name}: {p.title}" for b, p in PANELS])
def test_every_query_of_every_panel_returns_data(grown, board: Board, panel: Panel) -> None:
    for expression, legend in panel.queries:
        query = as_asked(expression)
        wait_for(lambda query=query: grown.prometheus.returns_data(query), query, within_s=60)
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= set(_labels_of(query)) | {"pod", "run", "state"}


def _labels_of(query: str) -> list[str]:
    return [word for group in re.findall(r"by \(([^)]*)\)", query) for word in group.split(", ")] + ["group"]


def test_the_files_of_the_chart_are_what_the_code_says() -> None:
    for path, text in files().items():
        assert path.read_text(encoding="utf-8") == text, "make observability"
    assert {path.name for path in next(iter(files())).parent.glob("*.json")} == {path.name for path in files()}


def test_make_cost_prices_what_prometheus_has_seen_of_serving(grown, tmp_path) -> None:
    done = grown.head.driver(
        "-m", "jobs.cost", "--json", "--prometheus", grown.prometheus.url,
        "--set", f"storage.root={tmp_path} cost.usd_per_hour.inference=18",
    )  # fmt: skip
    served = json.loads(done.stdout)["served"]
    assert 0 < served["tokens"] < 10_000
    assert served["machine_hours"] >= 1 / 60
    assert served["usd"] == pytest.approx(18 * served["machine_hours"])
    assert served["usd_per_million_tokens"] == pytest.approx(1e6 * served["usd"] / served["tokens"])
