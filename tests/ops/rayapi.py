"""Ray's kinds in a test's API server, objects of them, and the little that KubeRay's operator does to them."""

from __future__ import annotations

import time
from typing import Any

from apiserver import Kube

Object = dict[str, Any]
_OPEN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_BOOL, _TEXT, _INT = {"type": "boolean"}, {"type": "string"}, {"type": "integer"}
_CLUSTER = {
    "rayVersion": _TEXT,
    "suspend": _BOOL,
    "enableInTreeAutoscaling": _BOOL,
    "headGroupSpec": _OPEN,
    "workerGroupSpecs": {"type": "array", "items": _OPEN},
    "gcsFaultToleranceOptions": _OPEN,
}
SPECS: dict[str, Object] = {
    "RayCluster": _CLUSTER,
    "RayService": {"serveConfigV2": _TEXT, "suspend": _BOOL, "rayClusterConfig": _OPEN},
    "RayJob": {
        "entrypoint": _TEXT,
        "suspend": _BOOL,
        "shutdownAfterJobFinishes": _BOOL,
        "ttlSecondsAfterFinished": {"type": "integer", "default": 0},
        "backoffLimit": _INT,
        "clusterSelector": _OPEN,
        "deletionStrategy": _OPEN,
        "rayClusterSpec": {"type": "object", "properties": _CLUSTER},
    },
    "RayCronJob": {"schedule": _TEXT, "suspend": _BOOL, "jobTemplate": _OPEN},
}
"""Fields of each kind's spec, in the names and types of KubeRay 1.7."""


def plural(kind: str) -> str:
    return f"{kind.lower()}s"


def crd(kind: str, spec: Object, version: str = "v1") -> Object:
    """A definition whose schema knows only `spec`."""
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}, "status": _OPEN}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural(kind)}.ray.io"},
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural(kind), "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def install(kube: Kube, *definitions: Object) -> None:
    """Install definitions, and wait until they are served and their schemas published."""
    for definition in definitions:
        kube.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    deadline = time.monotonic() + 30
    for definition in definitions:
        version = definition["spec"]["versions"][0]["name"]
        kind = definition["spec"]["names"]["kind"]
        while f'"{kind}"' not in str(kube.ask("GET", f"/openapi/v3/apis/ray.io/{version}")).replace("'", '"'):
            assert time.monotonic() < deadline, f"{kind} is not published"
            time.sleep(0.05)


class Namespace:
    """One namespace of a test."""

    def __init__(self, kube: Kube, name: str, version: str = "v1") -> None:
        self.kube, self.name, self.version = kube, name, version
        if kube.ask("GET", f"/api/v1/namespaces/{name}") is None:
            kube.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def path(self, kind: str, name: str = "") -> str:
        root = "/api/v1" if kind == "ConfigMap" else f"/apis/ray.io/{self.version}"
        return f"{root}/namespaces/{self.name}/{plural(kind)}" + (f"/{name}" if name else "")

    def add(self, kind: str, name: str, spec: Object | None = None, **more: Any) -> Object:
        """Create an object; `status=` is set as the operator would."""
        metadata = {"name": name, "namespace": self.name} | more.pop("metadata", {})
        status = more.pop("status", None)
        api_version = "v1" if kind == "ConfigMap" else f"ray.io/{self.version}"
        body: Object = {"apiVersion": api_version, "kind": kind, "metadata": metadata} | more
        if spec is not None:
            body["spec"] = spec
        made: Object = self.kube.ask("POST", self.path(kind), body)
        if status is not None:
            self.set_status(kind, name, status)
        return made

    def set_status(self, kind: str, name: str, status: Object) -> None:
        path = f"{self.path(kind, name)}/status"
        self.kube.ask("PATCH", path, {"status": status}, "application/merge-patch+json")

    def patch(self, kind: str, name: str, body: Object) -> None:
        self.kube.ask("PATCH", self.path(kind, name), body, "application/merge-patch+json")

    def get(self, kind: str, name: str) -> Object | None:
        found: Object | None = self.kube.ask("GET", self.path(kind, name))
        return found

    def names(self, kind: str) -> list[str]:
        """Names of all objects but those that Kubernetes and the status report make."""
        ours = ("kube-root-ca.crt", "haetsal-ops-status")
        answer = self.kube.ask("GET", self.path(kind))
        found = (item["metadata"]["name"] for item in (answer or {"items": []})["items"])
        return sorted(name for name in found if name not in ours)

    def clear(self) -> None:
        """Delete every object, and release what its finalizers hold, as the operator would."""
        for kind in ("ConfigMap", *SPECS):
            for name in self.names(kind):
                self.patch(kind, name, {"metadata": {"finalizers": None}})
                self.kube.ask("DELETE", self.path(kind, name))

    def come_up(self) -> None:
        """What the operator would say of everything that is not asleep."""
        condition = {"status": "True", "reason": "AllPodRunningAndReady", "lastTransitionTime": "2026-11-22T00:00:00Z"}
        for kind, type_ in (("RayCluster", "RayClusterProvisioned"), ("RayService", "Ready")):
            for name in self.names(kind):
                item = self.get(kind, name)
                if item and not item["spec"].get("suspend"):
                    self.set_status(kind, name, {"conditions": [condition | {"type": type_, "message": ""}]})


def platform(namespace: Namespace) -> None:
    """A small platform: one of each case that a restore must tell apart."""
    pod = {"template": {"spec": {"containers": [{"name": "ray", "envFrom": [{"secretRef": {"name": "hub-token"}}]}]}}}
    group = {"groupName": "gpu", "replicas": 2} | pod
    cluster = {"rayVersion": "2.60.0", "headGroupSpec": pod, "workerGroupSpecs": [group]}
    namespace.add("ConfigMap", "gateway", data={"gateway.yaml": "routes: [챗봇]\n"})
    namespace.add("ConfigMap", "run-config", data={"config.yaml": "train: {epochs: 1}\n"})
    namespace.add("RayCluster", "shared", cluster, metadata={"finalizers": ["ray.io/gcs-ft-redis-cleanup-finalizer"]})
    owner = {"apiVersion": "ray.io/v1", "kind": "RayService", "name": "chat", "uid": "1", "controller": True}
    label = {"ray.io/originated-from-crd": "RayService"}
    namespace.add("RayCluster", "chat-x7k2p", cluster, metadata={"labels": label, "ownerReferences": [owner]})
    redis = {"redisAddress": "redis:6379", "externalStorageNamespace": "old"}
    service = {"serveConfigV2": "applications: []", "rayClusterConfig": cluster | {"gcsFaultToleranceOptions": redis}}
    namespace.add("RayService", "chat", service)
    job = {"entrypoint": "python -m jobs.train", "rayClusterSpec": cluster, "shutdownAfterJobFinishes": True}
    namespace.add("RayJob", "train-done", job, status={"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
    namespace.add("RayJob", "train-broken", job, status={"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"})
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "jobId": "train-running-abc"}
    namespace.add("RayJob", "train-running", job, status=running, metadata={"finalizers": ["ray.io/rayjob-finalizer"]})
    namespace.add("RayJob", "train-kept", job | {"shutdownAfterJobFinishes": False}, status=running)
    namespace.add("RayJob", "train-selected", job | {"clusterSelector": {"ray.io/cluster": "shared"}}, status=running)
    namespace.add("RayCronJob", "nightly", {"schedule": "0 3 * * *", "jobTemplate": job})
