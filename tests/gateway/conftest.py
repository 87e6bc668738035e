"""One gateway before two engines, for all tests that break none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from jobs.serving.gateway.keys import Keys
from tests.gateway.processes import Process, engine, free_port, gateway


@dataclass
class Stage:
    gateway: Process
    engines: tuple[Process, Process]
    folder: Path
    key: str
    client: httpx.Client
    """Sends the key."""


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("gateway")
    keys, key = Keys().with_new("tests", datetime.now(UTC), timedelta())
    tree = keys.model_dump(mode="json")
    tree["keys"]["tests"]["requests_per_minute"] = None
    (folder / "keys.yaml").write_text(yaml.safe_dump(tree))
    with engine(folder, "one", wait=False) as one, engine(folder, "two", wait=False) as two:
        config = {
            "keys_file": "keys.yaml",
            "backends": {
                "one": {"urls": [one.url], "model": "engine-one"},
                "two": {"urls": [two.url], "model": "engine-two"},
                "gone-then-one": {
                    "urls": [f"http://127.0.0.1:{free_port()}", one.url],
                    "model": "engine-one",
                },
                "gone": {"urls": [f"http://127.0.0.1:{free_port()}"], "model": "nobody"},
                "narrow": {"urls": [one.url], "model": "engine-one", "max_concurrent": 2, "max_queued": 2},
            },
            "models": {
                "haetsal": {
                    "variants": [
                        {"name": "champion", "backend": "one", "weight": 3},
                        {"name": "challenger", "backend": "two", "weight": 1},
                    ]
                },
                "shadowed": {
                    "variants": [{"name": "champion", "backend": "one"}],
                    "shadow": {"backend": "two", "fraction": 1},
                },
                "half-gone": {"variants": [{"name": "champion", "backend": "gone-then-one"}]},
                "gone": {"variants": [{"name": "champion", "backend": "gone"}]},
                "falls-back": {
                    "variants": [
                        {"name": "champion", "backend": "gone", "weight": 1},
                        {"name": "challenger", "backend": "two", "weight": 0},
                    ]
                },
                "narrow": {"variants": [{"name": "champion", "backend": "narrow"}]},
            },
            "feedback": {"address": "feedback"},
            "timeouts": {"request_s": 1.5, "first_byte_s": 1, "answer_s": 2, "idle_s": 1, "write_s": 1},
            "limits": {"body_bytes": 100_000, "prompt_chars": 2000},
        }
        with gateway(folder, config) as process:
            one.wait_until("/health")
            two.wait_until("/health")
            headers = {"authorization": f"Bearer {key}"}
            with httpx.Client(base_url=process.url, headers=headers, timeout=30, verify=False) as client:
                yield Stage(process, (one, two), folder, key, client)
