"""A Kubernetes API server for tests: the real kube-apiserver on a real etcd.

Both programs are looked for in $KUBEBUILDER_ASSETS, which envtest's users know, then on PATH; without them the tests
run on the stand-in beside this file, and say so. There are no nodes and no controllers: objects are stored, validated,
defaulted, watched and conflicted for real, and nothing reacts to them but what a test makes react.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import kube_standin
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOKEN = "test-token"
_START_S = 60


def find_programs() -> tuple[Path, Path] | None:
    """kube-apiserver and etcd, or none."""
    places = os.pathsep.join([os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ["PATH"]])
    found = [shutil.which(name, path=places) for name in ("kube-apiserver", "etcd")]
    return (Path(found[0]), Path(found[1])) if found[0] and found[1] else None


@contextmanager
def serve(folder: Path) -> Iterator[Kube]:
    """A fresh server; its files lie in `folder`."""
    programs = find_programs()
    if programs is None:
        with kube_standin.serve() as url:
            yield Kube(url, None)
        return
    apiserver, etcd = programs
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "sa.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n', encoding="utf-8")
    store, peer, port = (free_port() for _ in range(3))
    with ExitStack() as running:
        running.enter_context(
            _process(
                folder / "etcd.log",
                etcd,
                f"--data-dir={folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls=http://127.0.0.1:{store}",
                f"--advertise-client-urls=http://127.0.0.1:{store}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
            )
        )
        server = running.enter_context(
            _process(
                folder / "apiserver.log",
                apiserver,
                f"--etcd-servers=http://127.0.0.1:{store}",
                f"--secure-port={port}",
                "--bind-address=127.0.0.1",
                f"--cert-dir={folder / 'certs'}",
                f"--service-account-key-file={folder / 'sa.key'}",
                f"--service-account-signing-key-file={folder / 'sa.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--disable-admission-plugins=ServiceAccount",
            )
        )
        kube = Kube(f"https://127.0.0.1:{port}", folder / "certs" / "apiserver.crt")
        deadline = time.monotonic() + _START_S
        while not kube.ready():
            assert server.poll() is None, (folder / "apiserver.log").read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < deadline, "kube-apiserver does not become ready"
            time.sleep(0.05)
        yield kube


class Kube:
    """What a test does to the server itself, past the code under test."""

    def __init__(self, url: str, certificate: Path | None) -> None:
        self.url, self.certificate = url, certificate
        self._http: urllib3.PoolManager | None = None

    def kubeconfig(self, path: Path, url: str | None = None) -> Path:
        """Write a kubeconfig, for the server itself or a proxy at `url` (plain HTTP)."""
        server: dict[str, Any] = {"server": url or self.url}
        if not url and self.certificate:
            server["certificate-authority-data"] = base64.b64encode(self.certificate.read_bytes()).decode()
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(json.dumps(tree), encoding="utf-8")
        return path

    @property
    def http(self) -> urllib3.PoolManager:
        """Connections that trust the server's certificate, which it makes when it starts."""
        if self._http is None:
            self._http = urllib3.PoolManager(ca_certs=self.certificate and str(self.certificate), maxsize=8)
        return self._http

    def ready(self) -> bool:
        """Whether it serves."""
        try:
            if self.certificate and not self.certificate.is_file():
                return False
            return self.http.request("GET", f"{self.url}/readyz", headers=self._headers(), retries=False).status == 200
        except (urllib3.exceptions.HTTPError, OSError):
            self._http = None
            return False

    def ask(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """One request; fails on anything but success, None for 404."""
        answer = self.http.request(
            method,
            self.url + path,
            body=json.dumps(body) if body is not None else None,
            headers=self._headers() | {"Content-Type": content_type},
        )
        if answer.status == 404:
            return None
        assert answer.status < 300, answer.data
        return answer.json()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def _process(log: Path, program: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen([str(program), *options], stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
