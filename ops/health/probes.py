"""Questions over the network. Each is one try with a short wait: the next look is the retry."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import urllib3
from cryptography import x509

from jobs.errors import RemoteError
from ops.health.facts import applications
from ops.health.observed import Dashboard, Probe

_RUNNING = ("PENDING", "RUNNING")
_SAID = 200
"""Most characters of an answer in a sentence."""


class Answered(RemoteError):
    """A server answered with a status that is no success."""

    def __init__(self, path: str, status: int, body: bytes) -> None:
        said = " ".join(body[:_SAID].decode(errors="replace").split())
        super().__init__(f"answered {status}" + (f": {said}" if said else ""))
        self.path, self.status = path, status


class Web:
    """HTTP with one deadline for connecting and one for each silence."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._http = urllib3.PoolManager(timeout=timeout_s, retries=False)

    def ask(self, address: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Body of a GET. Raises RemoteError for no answer or a status that is not 2xx; no redirect is followed."""
        try:
            answer = self._http.request("GET", address, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise RemoteError(explain(error, self._timeout_s)) from None
        if not 200 <= answer.status <= 299:
            raise Answered(address, answer.status, answer.data)
        return answer.data

    def probe(self, address: str) -> Probe:
        """Whether `address` answers."""
        try:
            self.ask(address)
        except RemoteError as error:
            return _failed(address, error)
        return Probe(address)

    def dashboard(self, address: str) -> Dashboard:
        """Everything that is asked of a Ray dashboard. A token in RAY_AUTH_TOKEN is sent."""
        token = os.environ.get("RAY_AUTH_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self.ask(f"{address}/api/gcs_healthz", headers)  # first: without the GCS the rest does not answer
            serve = _json(self.ask(f"{address}/api/serve/applications/", headers))
            jobs = _json(self.ask(f"{address}/api/jobs/", headers))
            running = sum(job["status"] in _RUNNING for job in jobs)
            return Dashboard(Probe(address), "", applications(serve), running)
        except Answered as error:
            if error.path.endswith("/gcs_healthz") and error.status >= 500:
                return Dashboard(Probe(address), str(error))
            return Dashboard(_failed(address, error))
        except RemoteError as error:
            return Dashboard(_failed(address, error))
        except (KeyError, TypeError, AttributeError):
            return Dashboard(Probe(address, "its answers are not those of a Ray dashboard"))


def explain(error: urllib3.exceptions.HTTPError, timeout_s: float) -> str:
    """Why there was no answer, without the address, which may be a secret."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason:
        error = error.reason  # type: ignore[assignment]
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name is not known to DNS"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "the connection is refused"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, urllib3.exceptions.SSLError):
        return "its TLS certificate is not accepted"
    return "the connection broke off"


def certificate_end(place: str, timeout_s: float) -> datetime:
    """When the certificate of `host:port` ends. It is not verified: an ended one must be readable too."""
    host, _, port = place.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            data = secured.getpeercert(binary_form=True)
    except (OSError, ValueError) as error:
        raise RemoteError(f"{place}: no TLS there ({error})") from None
    assert data is not None  # a TLS server always has one
    return x509.load_der_x509_certificate(data).not_valid_after_utc


def _failed(address: str, error: RemoteError) -> Probe:
    return Probe(address, str(error), error.status if isinstance(error, Answered) else None)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise RemoteError("its answers are not JSON") from None
