"""An API server in the test's own process, for machines without kube-apiserver.

It stores objects and knows versions, conflicts, paged lists, status as a part of its own, finalizers, watches, defaults
and unknown fields of Ray's kinds: what the code under test relies on. Where the real one is there, tests use that.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, RLock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ops.restore.fields import prune

Object = dict[str, Any]

_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>status))?$"
)
_BUILT_IN = {
    "v1": {
        "namespaces": ("Namespace", False),
        "configmaps": ("ConfigMap", True),
        "events": ("Event", True),
        "nodes": ("Node", False),
        "pods": ("Pod", True),
    },
    "apps/v1": {"deployments": ("Deployment", True)},
    "batch/v1": {"jobs": ("Job", True)},
    "coordination.k8s.io/v1": {"leases": ("Lease", True)},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": ("CustomResourceDefinition", False)},
}


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


class Store:
    """All objects, by (plural, namespace, name)."""

    def __init__(self) -> None:
        self.kinds = deepcopy(_BUILT_IN)
        self.schemas: dict[str, dict[str, Object]] = {}
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.events: list[tuple[int, str, str, Object]] = []
        self.version = 1
        self.changed = Condition(RLock())

    def create(self, plural: str, namespace: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        with self.changed:
            if namespace and ("namespaces", "", namespace) not in self.objects:
                raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
            if (plural, namespace, name) in self.objects:
                raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
            body = self._known(plural, body)
            body.pop("status", None)
            own = {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-11-22T00:00:00Z", "generation": 1}
            body["metadata"] |= own | ({"namespace": namespace} if namespace else {})
            if plural == "customresourcedefinitions":
                self._define(body)
            return self._keep("ADDED", (plural, namespace, name), body)

    def change(self, key: tuple[str, str, str], body: Object, part: str) -> Object:
        """Replace all but the status, or the status alone."""
        with self.changed:
            old = self.get(key)
            wanted = body["metadata"].get("resourceVersion")
            if wanted and wanted != old["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified; please apply your changes to it")
            if part:
                new = old | {"status": body.get("status")}
            else:
                new = self._known(key[0], body) | ({"status": old["status"]} if "status" in old else {})
                fixed = {field: old["metadata"][field] for field in ("uid", "creationTimestamp", "generation")}
                new["metadata"] = {"name": key[2], **body["metadata"], **fixed}
                new["metadata"]["generation"] += new.get("spec") != old.get("spec")
                if not new["metadata"].get("finalizers"):
                    new["metadata"].pop("finalizers", None)
            if "deletionTimestamp" in old["metadata"] and not new["metadata"].get("finalizers"):
                return self._drop(key)
            return old if new == old else self._keep("MODIFIED", key, new)

    def delete(self, key: tuple[str, str, str], options: Object) -> Object:
        with self.changed:
            old = self.get(key)
            uid = options.get("preconditions", {}).get("uid")
            if uid and uid != old["metadata"]["uid"]:
                raise Refused(409, "Conflict", "Precondition failed: UID in precondition is of another object")
            if old["metadata"].get("finalizers"):
                marked = deepcopy(old)
                marked["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
                return self._keep("MODIFIED", key, marked)
            return self._drop(key)

    def get(self, key: tuple[str, str, str]) -> Object:
        if key not in self.objects:
            raise Refused(404, "NotFound", f'{key[0]} "{key[2]}" not found')
        return self.objects[key]

    def page(self, plural: str, namespace: str, limit: int, token: str) -> Object:
        with self.changed:
            names = sorted(key for key in self.objects if key[0] == plural and namespace in ("", key[1]))
            start = int(token or 0)
            more = {"continue": str(start + limit)} if limit and start + limit < len(names) else {}
            items = [self.objects[key] for key in names[start : start + limit if limit else None]]
            return {"metadata": {"resourceVersion": str(self.version)} | more, "items": deepcopy(items)}

    def watch(self, plural: str, namespace: str, since: int, timeout_s: float) -> Iterator[Object]:
        """Events after `since`, until nothing has come for `timeout_s`."""
        seen = next((at for at, event in enumerate(self.events) if event[0] > since), len(self.events))
        while True:
            with self.changed:
                if len(self.events) == seen and not self.changed.wait(timeout_s):
                    return
                fresh, seen = self.events[seen:], len(self.events)
            for _, type_, kind, item in fresh:
                if kind == plural and namespace in ("", item["metadata"].get("namespace")):
                    yield {"type": type_, "object": item}

    def _keep(self, type_: str, key: tuple[str, str, str], body: Object) -> Object:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = body
        self._tell(type_, key[0], body)
        return body

    def _drop(self, key: tuple[str, str, str]) -> Object:
        self.version += 1
        gone = self.objects.pop(key)
        self._tell("DELETED", key[0], gone)
        return gone

    def _tell(self, type_: str, plural: str, body: Object) -> None:
        self.events.append((self.version, type_, plural, deepcopy(body)))
        self.changed.notify_all()

    def _define(self, definition: Object) -> None:
        spec = definition["spec"]
        for version in spec["versions"]:
            names, api_version = spec["names"], f"{spec['group']}/{version['name']}"
            self.kinds.setdefault(api_version, {})[names["plural"]] = (names["kind"], True)
            mine = {"group": spec["group"], "version": version["name"], "kind": names["kind"]}
            schema = version["schema"]["openAPIV3Schema"] | {"x-kubernetes-group-version-kind": [mine]}
            self.schemas.setdefault(api_version, {})[names["kind"]] = schema

    def _known(self, plural: str, body: Object) -> Object:
        """Unknown fields are dropped and defaults filled in, as the schema says."""
        body = deepcopy(body)
        schema = self.schemas.get(body.get("apiVersion", ""), {}).get(body.get("kind", ""), {})
        spec = schema.get("properties", {}).get("spec", {})
        if spec and "spec" in body:
            prune(body["spec"], spec, "spec")
            for name, field in spec["properties"].items():
                if "default" in field:
                    body["spec"].setdefault(name, field["default"])
        return body


@contextmanager
def serve() -> Iterator[str]:
    """Address of a fresh server."""
    store = Store()
    for name in ("default", "kube-system"):
        store.create("namespaces", "", {"metadata": {"name": name}})

    class Handler(_Handler):
        it = store

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait 40 ms for an acknowledgement
    it: Store

    def handle_one(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if "watch" in query:
                self._watch(url.path, query)
                return
            answer = self._discovery(url.path) if self.command == "GET" else None
            code = 201 if self.command == "POST" else 200
            self._reply(code, answer or self._answer(url.path, query, json.loads(data) if data else {}))
        except Refused as error:
            self._reply(error.body["code"], error.body)

    def _answer(self, path: str, query: dict[str, str], body: Object) -> Object:
        plural, namespace, name, part = self._target(path)
        key = (plural, namespace, name)
        match self.command:
            case "GET" if name:
                return self.it.get(key)
            case "GET":
                return self.it.page(plural, namespace, int(query.get("limit", 0)), query.get("continue", ""))
            case "POST":
                return self.it.create(plural, namespace, body)
            case "PUT":
                return self.it.change(key, body, part)
            case "PATCH":
                with self.it.changed:
                    return self.it.change(key, _merged(self.it.get(key), body), part)
            case _:
                return self.it.delete(key, body)

    def _target(self, path: str) -> tuple[str, str, str, str]:
        found = _PATH.match(path)
        if not found:
            raise Refused(404, "NotFound", path)
        api_version = found["core"] or f"{found['group']}/{found['version']}"
        if found["plural"] not in self.it.kinds.get(api_version, {}):
            raise Refused(404, "NotFound", path)
        return found["plural"], found["namespace"] or "", found["name"] or "", found["part"] or ""

    def _discovery(self, path: str) -> Object | None:
        if path == "/version":
            return {"gitVersion": "v1.35.0-standin"}
        if path.startswith("/openapi/v3/apis/"):
            return {"components": {"schemas": self.it.schemas.get(path.removeprefix("/openapi/v3/apis/"), {})}}
        for api_version, kinds in self.it.kinds.items():
            group, _, version = api_version.rpartition("/")
            if group and path == f"/apis/{group}":
                named = {"groupVersion": api_version, "version": version}
                return {"versions": [named], "preferredVersion": named}
            if path == (f"/apis/{api_version}" if group else f"/api/{api_version}"):
                rows = [{"name": name, "kind": kind, "namespaced": inside} for name, (kind, inside) in kinds.items()]
                return {"resources": rows}
        return {} if path == "/readyz" else None

    def _watch(self, path: str, query: dict[str, str]) -> None:
        plural, namespace, _, _ = self._target(path)
        self.send_response_only(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            since, timeout_s = int(query["resourceVersion"]), float(query["timeoutSeconds"])
            for event in self.it.watch(plural, namespace, since, timeout_s):
                self.wfile.write(json.dumps(event).encode() + b"\n")
                self.wfile.flush()
        except OSError:
            return  # the client has seen enough

    def _reply(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response_only(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def __getattr__(self, name: str) -> Any:
        """The base class looks for `do_GET` and so on."""
        if name.startswith("do_"):
            return self.handle_one
        raise AttributeError(name)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client is gone

    def log_message(self, *_: Any) -> None:
        pass


def _merged(old: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new
