"""The little of Kubernetes that backup and restore touch, as dictionaries, over the official client.

Requests go through the official client, which knows how to log in, but discovery is ours: the library's dynamic client
takes a group whose discovery answers 503 for an empty one, and a backup would miss its kinds without a word. Every
request is retried with jittered back-off on resets, 429 (after the time the server asks for) and 5xx.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from jobs.errors import EnvironmentNotReady, HaetsalError, RemoteError
from ops.settings import ClusterSettings

Object = dict[str, Any]

_PAGE = 500
_LISTS = 5
"""Times that a list is begun again when its pages expired underway (410)."""
_RETRIES = urllib3.Retry(
    total=6,
    backoff_factor=0.2,
    backoff_jitter=0.3,
    backoff_max=20,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,  # all: what was created by a try whose answer was lost shows as 409 and is looked at
    raise_on_status=False,
)
_READS = 4
"""Tries of a GET whose answer breaks off."""


class Exists(HaetsalError):
    """An object that was to be created is there already."""

    exit_code = 5


class Changed(HaetsalError):
    """An object was changed by somebody else between our reading and our writing."""

    exit_code = 5


class Expired(RemoteError):
    """A paged list could not be read to its end."""


class Missing(HaetsalError):
    """An object, namespace or kind is not there."""

    exit_code = 3


@dataclass(frozen=True)
class Resource:
    """How a kind is reached: `path` with a place for the namespace."""

    api_version: str
    kind: str
    path: str
    namespaced: bool

    def url(self, namespace: str | None, name: str | None = None) -> str:
        """Path of one object, or of all of them in a namespace or the cluster."""
        inside = f"namespaces/{namespace}/" if namespace and self.namespaced else ""
        group, _, plural = self.path.rpartition("/")
        return f"{group}/{inside}{plural}" + (f"/{name}" if name else "")


class Cluster:
    """One cluster. Methods raise Missing, Exists, Changed, EnvironmentNotReady (not allowed) or RemoteError."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._timeout_s = settings.request_timeout_s
        configuration = client.Configuration()
        try:
            if settings.context is None and Path(config.incluster_config.SERVICE_TOKEN_FILENAME).is_file():
                config.load_incluster_config(configuration)
            else:
                files = os.environ.get("KUBECONFIG")  # the library looks only when it is imported
                config.load_kube_config(files, settings.context, configuration)
        except (config.ConfigException, OSError) as error:
            why = str(error).rstrip(".")
            raise EnvironmentNotReady(f"no cluster: {why}; set KUBECONFIG or cluster.context") from None
        configuration.retries = _RETRIES
        self.server = str(configuration.host)
        self._api = client.ApiClient(configuration)
        self._resources: dict[tuple[str, str], Resource] = {}

    def resource(self, group: str, kind: str) -> Resource:
        """How this cluster serves `kind`, in the version it prefers. Raises Missing if it does not."""
        if (group, kind) not in self._resources:
            for version in self._versions(group):
                root = f"/apis/{group}/{version}" if group else f"/api/{version}"
                for row in self._send("GET", root, f"{group or 'core'}/{version}").get("resources", []):
                    if "/" not in row["name"]:
                        api_version = f"{group}/{version}" if group else version
                        found = Resource(api_version, row["kind"], f"{root}/{row['name']}", row["namespaced"])
                        self._resources.setdefault((group, row["kind"]), found)
        try:
            return self._resources[group, kind]
        except KeyError:
            of = f" of {group}" if group else ""
            raise Missing(f"{self.server}: the cluster has no kind {kind}{of}; install its CRD") from None

    def served(self, group: str, kind: str) -> str | None:
        """The apiVersion that this cluster prefers for `kind`; none if it does not know it."""
        try:
            return self.resource(group, kind).api_version
        except Missing:
            return None

    def version(self) -> str:
        """Version of the API server."""
        return str(self._send("GET", "/version", "version")["gitVersion"])

    def schema(self, resource: Resource) -> Object:
        """What the cluster knows of a kind, as it publishes it to all who may log in; empty if it publishes none."""
        group, _, version = resource.api_version.rpartition("/")
        published = self._send("GET", f"/openapi/v3/apis/{resource.api_version}", f"schema of {resource.api_version}")
        mine = {"group": group, "version": version, "kind": resource.kind}
        found = (
            schema
            for schema in published.get("components", {}).get("schemas", {}).values()
            if mine in schema.get("x-kubernetes-group-version-kind", [])
        )
        return next(found, {})

    def get(self, group: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object."""
        return self._send("GET", self.resource(group, kind).url(namespace, name), f"{kind} {name}")

    def find_all(self, group: str, kind: str, namespace: str | None = None) -> Iterator[Object]:
        """All objects of a kind, page by page. One that comes twice, since the list began again, comes once."""
        seen: set[str] = set()
        for page in self._pages(self.resource(group, kind), namespace):
            for item in page["items"]:
                if item["metadata"]["uid"] not in seen:
                    seen.add(item["metadata"]["uid"])
                    yield item

    def create(self, group: str, body: Object) -> Object:
        """Create an object."""
        return self._write("POST", group, body)

    def replace(self, group: str, body: Object) -> Object:
        """Replace an object; with a resourceVersion in it, only if it is still that version."""
        return self._write("PUT", group, body)

    def merge(self, group: str, body: Object) -> Object:
        """Change some fields of an object (JSON merge patch)."""
        return self._write("PATCH", group, body, "application/merge-patch+json")

    def delete(
        self, group: str, kind: str, name: str, namespace: str | None = None, options: Object | None = None
    ) -> None:
        """Ask for the deletion of an object (`options`: DeleteOptions); fine if it is not there."""
        try:
            self._send("DELETE", self.resource(group, kind).url(namespace, name), f"{kind} {name}", body=options)
        except Missing:
            return

    def watch(self, group: str, kind: str, timeout_s: float, namespace: str | None = None) -> Iterator[Object]:
        """Each object that is there, then each that changes, until the server has closed the watch after `timeout_s`.

        A deleted object comes once more, as it was. The watch can end early: callers begin again.
        """
        resource = self.resource(group, kind)
        seconds, version = max(1, round(timeout_s)), ""
        for page in self._pages(resource, namespace):
            version = page["metadata"]["resourceVersion"]
            yield from page["items"]
        query = [("watch", "true"), ("timeoutSeconds", str(seconds)), ("resourceVersion", version)]
        with _explained(f"{kind} in {namespace or 'the cluster'}"):
            answer = self._open("GET", resource.url(namespace), query, timeout_s=seconds + self._timeout_s)
            for line in _lines(iter(lambda: answer.response.read1(65536), b"")):
                event = json.loads(line)
                if event["type"] == "ERROR":  # expired: begin again
                    return
                yield event["object"]

    def _pages(self, resource: Resource, namespace: str | None) -> Iterator[Object]:
        """Pages of a list, which begins again, up to `_LISTS` times, when the server has forgotten it underway."""
        what = f"{resource.kind} in {namespace or 'the cluster'}"
        begun, token = 1, ""
        while True:
            query = [("limit", str(_PAGE))] + ([("continue", token)] if token else [])
            try:
                page = self._send("GET", resource.url(namespace), what, query)
            except Expired:
                if begun == _LISTS:
                    raise
                begun, token = begun + 1, ""
                continue
            for item in page["items"]:  # lists leave out what they are lists of
                item |= {"apiVersion": resource.api_version, "kind": resource.kind}
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    def _versions(self, group: str) -> list[str]:
        """Versions of a group, the preferred one first."""
        if not group:
            return ["v1"]
        try:
            answer = self._send("GET", f"/apis/{group}", f"API group {group}")
        except Missing:
            return []
        preferred = answer["preferredVersion"]["version"]
        return [preferred] + [row["version"] for row in answer["versions"] if row["version"] != preferred]

    def _write(self, method: str, group: str, body: Object, content_type: str = "application/json") -> Object:
        kind, metadata = body["kind"], body["metadata"]
        name = None if method == "POST" else metadata["name"]
        url = self.resource(group, kind).url(metadata.get("namespace"), name)
        return self._send(method, url, f"{kind} {metadata['name']}", (), body, content_type)

    def _send(
        self,
        method: str,
        path: str,
        what: str,
        query: Sequence[tuple[str, str]] = (),
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        with _explained(what):
            for attempt in range(_READS):
                try:
                    data = self._open(method, path, query, body, content_type).response.data
                    break
                except urllib3.exceptions.ProtocolError:
                    # The connection broke within the answer. Only what changes nothing may be asked again here.
                    if method != "GET" or attempt == _READS - 1:
                        raise
            answer: Object = json.loads(data)
            return answer

    def _open(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: Object | None = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Any:
        """The answer, not yet read. Raises _Refused for a status that is not 2xx."""
        request = self._api.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._api.call_api(*request, _request_timeout=timeout_s or self._timeout_s)
        if not 200 <= answer.status <= 299:
            raise _Refused(answer.status, answer.response.data)
        return answer


class _Refused(Exception):
    """A status that is not 2xx."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what goes wrong within into an error for people."""
    try:
        yield
    except _Refused as error:
        raise _explain(what, error) from None
    except (urllib3.exceptions.HTTPError, client.ApiException) as error:
        raise RemoteError(f"{what}: the API server does not answer ({_reason(error)})") from None


def _explain(what: str, error: _Refused) -> HaetsalError:
    try:
        status = json.loads(error.body)
        said, reason = status.get("message", ""), status.get("reason", "")
    except (ValueError, AttributeError):
        said, reason = error.body[:200].decode(errors="replace"), ""
    match error.status:
        case 404:
            return Missing(f"{what}: is not there ({said})")
        case 409 if reason == "AlreadyExists":
            return Exists(f"{what}: is there already")
        case 409:
            return Changed(f"{what}: {said}")
        case 410:
            return Expired(f"{what}: the API server forgot its list faster than it could be read, {_LISTS} times")
        case 401:
            return EnvironmentNotReady(f"{what}: the API server refuses the credentials; log in again")
        case 403:
            return EnvironmentNotReady(f"{what}: not allowed ({said}); see the chart's roles")
        case _:
            return RemoteError(f"{what}: the API server answered {error.status}: {said}")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).split("(Caused by ")[-1]
