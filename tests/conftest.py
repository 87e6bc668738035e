"""For all tests, before torch is imported."""

import os

import pytest

# Tiny models gain nothing from threads, and threads that wait for each other on a busy machine cost ten times as much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONG_TIMEOUT_S = 900
"""Before a long test counts as hung: on two busy cores, sound ones have taken over four minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S))
