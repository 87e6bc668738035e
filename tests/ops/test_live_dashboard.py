"""Ray's own dashboard, in token mode: what a backup saves of it, and what the health checker reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apiserver
import pytest
import urllib3

from ops.backup.objects import open_objects
from ops.backup.sealing import Sealing
from ops.backup.sources import Dashboards
from ops.backup.upload import Upload
from ops.health.probes import Web
from ops.settings import ClusterSettings, StoreSettings

pytestmark = pytest.mark.long
TOKEN, SECRET = "t" * 32, "a-value-that-must-not-be-saved"
APPLICATION = """
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Answers:
    def __call__(self, request):
        return "yes"

app = Answers.bind()
"""
_START_S = 150


@dataclass(frozen=True)
class Head:
    """A Ray head and the token that its dashboard asks for."""

    url: str

    def ask(self, method: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        return urllib3.request(method, self.url + path, headers=headers, body=data, timeout=60, retries=False)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """`ray start --head` with token authentication, one Serve application and one job that has ended."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a folder of pytest's is too long for Ray's sockets: 107 bytes
    (folder / "answers.py").write_text(APPLICATION, encoding="utf-8")
    port = apiserver.free_port()
    environ = os.environ | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(folder), "RAY_SERVE_ENABLE_HA_PROXY": "0",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0", "--num-cpus=1",
        "--object-store-memory=100000000", f"--dashboard-port={port}", "--include-dashboard=true",
        f"--dashboard-agent-listen-port={apiserver.free_port()}", f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    it = Head(f"http://127.0.0.1:{port}")
    try:
        _until(lambda: it.ask("GET", "/api/gcs_healthz").status == 200, process, folder / "log")
        application = {"name": "chat", "import_path": "answers:app", "route_prefix": "/"}
        http = {"host": "127.0.0.1", "port": apiserver.free_port()}
        serve = {"http_options": http, "applications": [application]}
        _until(lambda: it.ask("PUT", "/api/serve/applications/", serve).status == 200, process, folder / "log")
        variables = {"env_vars": {"API_KEY": SECRET}}
        job = {"entrypoint": "true", "submission_id": "run-1", "runtime_env": variables}
        _until(lambda: it.ask("POST", "/api/jobs/", job).status == 200, process, folder / "log")  # once it has an agent
        _until(lambda: it.ask("GET", "/api/jobs/run-1").json()["status"] == "SUCCEEDED", process, folder / "log")
        _until(lambda: _serve_status(it) == "RUNNING", process, folder / "log")
        yield it
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_backup_saves_job_records_and_serve_settings(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    objects = open_objects(StoreSettings(root=str(tmp_path)))
    cluster = {
        "metadata": {"name": "shared", "namespace": "n"},
        "status": {"state": "ready", "head": {"serviceName": "h"}},
    }
    with Upload(objects, Sealing(), 1, 7) as upload:
        items = list(Dashboards(ClusterSettings(dashboard=head.url)).items(cluster, upload))
    stored = {item.kind: Sealing().unseal(_blob(tmp_path, item.blobs[0]), item.kind) for item in items}
    (record,) = (row for row in json.loads(stored["RayJobRecords"]) if row["submission_id"] == "run-1")
    assert (record["status"], record["entrypoint"]) == ("SUCCEEDED", "true")
    assert json.loads(stored["ServeApplications"])["chat"]["import_path"] == "answers:app"
    assert SECRET.encode() not in b"".join(stored.values())


def test_the_checker_reads_it(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    seen = Web(30).dashboard(head.url)
    assert (seen.probe.problem, seen.gcs, seen.running_jobs) == ("", "", 0)
    assert [(one.name, one.status) for one in seen.applications] == [("chat", "RUNNING")]


def test_a_wrong_token_is_told(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "w" * 32)
    assert Web(30).dashboard(head.url).probe.status in (401, 403)


def _blob(root: Path, sha256: str) -> bytes:
    (path,) = root.glob(f"objects/*/{sha256}")
    return path.read_bytes()


def _serve_status(head: Head) -> str:
    applications = head.ask("GET", "/api/serve/applications/").json().get("applications", {})
    return str(applications.get("chat", {}).get("status"))


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    ends_s = time.monotonic() + _START_S
    while time.monotonic() < ends_s:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            if true():
                return
        except (urllib3.exceptions.HTTPError, KeyError):
            pass  # not up yet
        time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-2000:])
