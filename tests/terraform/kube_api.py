"""As much of a Kubernetes API server as the real kubectl needs to list, delete and wait: discovery, lists, watches.

Objects are deleted as real ones are: a finalizer keeps an object, with a deletionTimestamp, until it is released.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread, Timer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

KINDS = {
    "services": ("", "v1", "Service", True),
    "persistentvolumeclaims": ("", "v1", "PersistentVolumeClaim", True),
    "persistentvolumes": ("", "v1", "PersistentVolume", False),
    "ingresses": ("networking.k8s.io", "v1", "Ingress", True),
    "customresourcedefinitions": ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", False),
    "rayjobs": ("ray.io", "v1", "RayJob", True),
    "rayservices": ("ray.io", "v1", "RayService", True),
    "rayclusters": ("ray.io", "v1", "RayCluster", True),
}
FINALIZER_S = 0.3


class KubeApi:
    """The store. `log` is the order in which things were asked for and went; the test's own steps write to it too."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.version = 1
        self.changed = Condition()
        self.url = ""
        self.released = False

    def add(self, plural: str, name: str, namespace: str = "", held: bool = False, **spec: object) -> None:
        """An object that goes FINALIZER_S after it is deleted, or, if `held`, when it is released."""
        group, version, kind, _ = KINDS[plural]
        metadata = {"name": name, "uid": f"{plural}-{namespace}-{name}", "finalizers": ["held" if held else "slow"]}
        if namespace:
            metadata["namespace"] = namespace
        api_version = f"{group}/{version}" if group else version
        self.objects[plural, namespace, name] = {
            "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec
        }  # fmt: skip

    def delete(self, key: tuple[str, str, str]) -> None:
        with self.changed:
            metadata = self.objects[key]["metadata"]
            if "deletionTimestamp" in metadata:
                return
            metadata["deletionTimestamp"] = "2026-11-22T00:00:00Z"
            self.log.append(f"delete {key[0]}/{key[2]}")
            self._touch()
            if metadata["finalizers"] == ["slow"]:
                Timer(FINALIZER_S, self.remove, [key]).start()

    def remove(self, key: tuple[str, str, str]) -> None:
        with self.changed:
            if self.objects.pop(key, None):
                self.log.append(f"gone {key[0]}/{key[2]}")
                self._touch()

    def release_volumes(self) -> None:
        """What happens when the pods that use them are gone: marked claims go; their disks go once someone waits."""
        for key in [k for k, o in self.objects.items() if "deletionTimestamp" in o["metadata"]]:
            self.remove(key)
        self.released = True

    def watched(self, plural: str) -> None:
        """A disk goes only while it is watched: a teardown that does not wait leaves it, however slow the rest is."""
        if plural == "persistentvolumes" and self.released:
            for key in [k for k in self.objects if k[0] == plural]:
                Timer(FINALIZER_S, self.remove, [key]).start()

    def selected(self, plural: str, namespace: str, name: str) -> list[dict[str, Any]]:
        return [
            o for (p, ns, n), o in self.objects.items()
            if p == plural and (not namespace or ns == namespace) and (not name or n == name)
        ]  # fmt: skip

    def _touch(self) -> None:
        self.version += 1
        self.changed.notify_all()


@contextmanager
def serve() -> Iterator[KubeApi]:
    api = KubeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_GET(self) -> None:
            url = urlparse(self.path)
            discovered = discovery(url.path)
            if discovered:
                self.reply(200, discovered)
                return
            plural, namespace, name = self.target(url.path)
            query = parse_qs(url.query)
            name = name or query.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
            if "watch" in query:
                self.watch(plural, namespace, name)
            elif self.target(url.path)[2]:
                found = api.selected(plural, namespace, name)
                self.reply(200, found[0]) if found else self.not_found(plural, name)
            else:
                group, version, kind, _ = KINDS[plural]
                body = {"kind": f"{kind}List", "apiVersion": f"{group}/{version}" if group else version}
                items = api.selected(plural, namespace, name)
                self.reply(200, {**body, "metadata": {"resourceVersion": str(api.version)}, "items": items})

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = self.target(urlparse(self.path).path)
            if key in api.objects:
                api.delete(key)
                self.reply(200, api.objects[key])
            else:
                self.not_found(key[0], key[2])

        def do_POST(self) -> None:
            step = unquote(self.path.removeprefix("/log/"))
            api.log.append(step)
            if step == "destroyed addons":
                api.release_volumes()
            self.reply(200, {})

        def watch(self, plural: str, namespace: str, name: str) -> None:
            """Send DELETED for each selected object that goes away; end when none is left."""
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            api.watched(plural)
            with api.changed:
                before = api.selected(plural, namespace, name)
                while before:
                    api.changed.wait(timeout=20)
                    now = api.selected(plural, namespace, name)
                    for item in before:
                        if item not in now:
                            self.wfile.write(json.dumps({"type": "DELETED", "object": item}).encode() + b"\n")
                            self.wfile.flush()
                    before = now
            self.close_connection = True

        def target(self, path: str) -> tuple[str, str, str]:
            """(plural, namespace, name) of a resource's path."""
            parts = path.strip("/").split("/")
            rest = parts[2:] if parts[0] == "api" else parts[3:]
            namespace = ""
            if rest[0] == "namespaces" and len(rest) > 2:
                namespace, rest = rest[1], rest[2:]
            return rest[0], namespace, rest[1] if len(rest) > 1 else ""

        def not_found(self, plural: str, name: str) -> None:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            self.reply(404, {**status, "message": f'{plural} "{name}" not found', "details": {"name": name}})

        def reply(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def discovery(path: str) -> dict[str, Any] | None:
    """Answers to kubectl's questions about which resources there are."""
    groups = sorted({(group, version) for group, version, _, _ in KINDS.values() if group})
    if path == "/version":
        return {"major": "1", "minor": "35", "gitVersion": "v1.35.6"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        listed = [
            {"name": g, "versions": [{"groupVersion": f"{g}/{v}", "version": v}],
             "preferredVersion": {"groupVersion": f"{g}/{v}", "version": v}}
            for g, v in groups
        ]  # fmt: skip
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    for group, version in [("", "v1"), *groups]:
        if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
            resources = [
                {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind,
                 "verbs": ["get", "list", "watch", "delete"]}
                for plural, (g, _, kind, namespaced) in KINDS.items()
                if g == group
            ]  # fmt: skip
            group_version = f"{group}/{version}" if group else version
            return {"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}
    return None
