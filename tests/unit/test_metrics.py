"""The definitions of metrics: complete, bounded, and the page that is written from them."""

from __future__ import annotations

import pytest

from jobs.metrics import table
from jobs.metrics.definitions import DEFINITIONS, LABELS, OF_THE_SEED, find


def test_names_follow_prometheus() -> None:
    names = [metric.name for metric in DEFINITIONS]
    assert len(set(names)) == len(names)
    for metric in DEFINITIONS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.unit != "s" or metric.name.endswith("_seconds"), metric.name
        assert metric.unit != "unix s" or metric.name.endswith("_timestamp_seconds"), metric.name
        assert metric.unit != "bytes" or metric.name.endswith("_bytes"), metric.name


def test_every_label_says_why_its_values_are_few() -> None:
    used = {label for metric in DEFINITIONS for label in metric.labels}
    assert used == set(LABELS)
    assert not used & {"user", "request", "request_id", "session", "prompt", "path", "url", "address"}


def test_the_four_of_the_first_design_are_there() -> None:
    exported = {metric.exported for metric in DEFINITIONS} | {"ray_node_gpus_utilization"}
    assert set(OF_THE_SEED.values()) <= exported


def test_the_page_is_what_the_definitions_say() -> None:
    assert table.FILE.read_text(encoding="utf-8") == table.markdown(), "make observability"


def test_an_unknown_metric_is_an_error() -> None:
    with pytest.raises(KeyError, match="no such metric"):
        find("gateway_request_total")
