"""A platform that lives: real objects in the API server, real HTTP servers, and what makes deleted things again.

What is played here, because no kubelet, KubeRay or Ray runs: pods are made and called ready, a RayService makes its
RayCluster, an application whose environment changed is deployed again, and a new head comes with a healthy dashboard.
Everything that the checker itself does is real.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import listener
from apiserver import Kube
from listener import Listener, Says
from rayapi import Namespace

from ops.backup import catalog
from ops.backup.catalog import State
from ops.backup.objects import open_objects
from ops.backup.run import backup
from ops.backup.sealing import Sealing
from ops.health.gather import Gatherer
from ops.health.rounds import Checker, Report
from ops.kinds import MEMORY_CONFIG_MAP
from ops.kube import Cluster
from ops.recovery.act import RESTARTED, PlatformRepairer
from ops.recovery.memory import ConfigMapStore
from ops.settings import OpsSettings

Object = dict[str, Any]
_LOOK_S = 0.15
_numbers = itertools.count()
_SERVE_CONFIG = "applications:\n- name: chat\n  import_path: jobs.serving.app:build\n"
APPLICATION = {"status": "RUNNING", "message": "", "last_deployed_time_s": 1_763_000_000.0}


def now(**ago: float) -> str:
    """A time as the API server writes it."""
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Living:
    """Two Ray clusters (one of them a RayService's), a gateway, MLflow, and the operator's Deployment."""

    def __init__(self, kube: Kube, name: str, store: str, stack: ExitStack) -> None:
        self.kube, self.namespace = kube, Namespace(kube, name)
        self.shared, self.chat, self.serve, self.gateway, self.tracking, self.hook = (
            stack.enter_context(listener.listen()) for _ in range(6)
        )
        self.dashboards = {"shared": self.shared, "chat": self.chat}
        self.broken_heads: set[str] = set()
        """Clusters whose new heads fail too, until the cluster itself is another."""
        self.operator_works = True
        self._store = store
        self._heads: dict[str, str] = {}
        self._nodes: list[str] = []
        self._restarted = ""
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._live, daemon=True)
        self._trouble: list[BaseException] = []
        for one in (self.shared, self.chat):
            self._heal_dashboard(one)
        self._make()

    def settings(self, **health: Any) -> OpsSettings:
        """Settings with short times; `section__key` changes one."""
        tree: dict[str, dict[str, Any]] = {
            "cluster": {
                "namespace": self.namespace.name,
                "dashboard": "http://{service}",
                "lease_s": 2,
                "request_timeout_s": 5,
            },
            "store": {"root": self._store, "request_timeout_s": 2, "attempts": 2},
            "mlflow": {"uri": self.tracking.url},
            "health": {
                "clusters": ["shared"],
                "services": ["chat"],
                "operator": f"{self.namespace.name}/kuberay-operator",
                "gateway": self.gateway.url,
                "serve": self.serve.url,
                "probe_timeout_s": 0.5,
                "interval_s": 1,
                "deadline_s": 10,
                "drill_age_s": None,
                "start_s": 3600,
            },
            "recovery": {
                "confirm_s": 0.2,
                "recreate_after_s": 0.4,
                "window_s": 3,
                "backoff_max_s": 3,
                "gone_s": 10,
                "calm_s": 2,
                "flaps": 50,
            },
            "alerts": {"deadline_s": 1},
        }
        for key, value in health.items():
            section, _, name = key.partition("__")
            tree[section][name] = value
        return OpsSettings.model_validate(tree)

    def back_up(self) -> None:
        """Make a backup, past whatever stands between the checker and the API server."""
        settings = self.settings()
        settings = settings.model_copy(update={"mlflow": settings.mlflow.model_copy(update={"uri": None})})
        with tempfile.TemporaryDirectory() as folder:
            direct = str(self.kube.kubeconfig(Path(folder) / "kubeconfig"))
            with patch.dict(os.environ, {"KUBECONFIG": direct}):
                cluster = Cluster(settings.cluster)
        result = backup(settings, cluster, open_objects(settings.store), Sealing())
        assert result.manifest.state is State.COMPLETED, result.manifest.problems

    def checker(self, settings: OpsSettings, channels: Any = ()) -> Checker:
        """The real one: it looks, repairs and remembers on the API server, and audits into the store."""
        cluster, objects = Cluster(settings.cluster), open_objects(settings.store)
        gatherer = Gatherer(settings, cluster, objects, Sealing())
        repairer = PlatformRepairer(settings, cluster, objects, Sealing())
        store = ConfigMapStore(cluster, settings.cluster.namespace)
        return Checker(settings, gatherer.look, store, repairer, channels, objects)

    # What a test does to it.

    def pods(self, role: str, cluster: str = "") -> list[Object]:
        """Pods by role; heads and workers by the prefix of their cluster."""
        found = self.kube.ask("GET", f"/api/v1/namespaces/{self.namespace.name}/pods")["items"]
        return [
            pod
            for pod in found
            if pod["metadata"]["labels"].get("role") == role
            and pod["metadata"]["labels"].get("ray.io/cluster", "").startswith(cluster)
        ]

    def break_pod(self, pod: Object, **state: Any) -> None:
        """Make a pod keep ending."""
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
        status = self._pod_status(ready=False)
        status["containerStatuses"][0] |= {"state": waiting, "lastState": ended, "ready": False}
        self._set("pods", pod["metadata"]["name"], status | state)
        assert self._get("pods", pod["metadata"]["name"])["status"]["containerStatuses"][0]["state"] == waiting

    def forget(self) -> None:
        """Empty the checker's memory and its audit log."""
        self.kube.ask("DELETE", self.namespace.path("ConfigMap", MEMORY_CONFIG_MAP))
        objects = open_objects(self.settings().store)
        for stored in list(objects.list("audit/")):
            objects.delete(stored.name)

    def heal(self) -> None:
        """Undo every fault that is only told, and make a new backup."""
        for name in self._nodes:
            self.kube.ask("DELETE", f"/api/v1/nodes/{name}")
        self._nodes.clear()
        for name in self.namespace.names("RayJob"):
            self.kube.ask("DELETE", self.namespace.path("RayJob", name))
        self.gateway.otherwise = self.tracking.otherwise = Says()
        self.set_deployment("kuberay-operator", 1)
        self.operator_works = True
        objects = open_objects(self.settings().store)
        for backup_id in catalog.backup_ids(objects):
            objects.delete(f"manifests/{backup_id}.json")
        self.back_up()

    def change_pod(self, pod: Object, status: Object) -> None:
        """Change some of a pod's status."""
        self._set("pods", pod["metadata"]["name"], status)

    def add_failed_submitter(self, run: str) -> None:
        """The Job that submits a run, after two failures."""
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": run, "uid": "1"}
        pod = {"spec": {"containers": [{"name": "main", "image": "x"}], "restartPolicy": "Never"}}
        body = {"metadata": {"name": run, "ownerReferences": [owner]}, "spec": {"template": pod}}
        self.kube.ask("POST", self._path("jobs"), body)
        self._set("jobs", run, {"failed": 2})

    def add_node(self, condition: str = "Ready", status: str = "True", reason: str = "", taint: str = "") -> None:
        """A node that is ready but for one condition, or a taint."""
        name = f"{self.namespace.name}-{next(_numbers)}"
        changed = {"lastTransitionTime": now(), "message": "it was broken"}
        rows = {"Ready": "True"} | {condition: status}
        conditions = [{"type": kind, "status": value, "reason": reason} | changed for kind, value in rows.items()]
        spec = {"taints": [{"key": taint, "effect": "NoSchedule"}]} if taint else {}
        self.kube.ask("POST", "/api/v1/nodes", {"metadata": {"name": name}, "spec": spec})
        self._nodes.append(name)
        body = {"status": {"conditions": conditions}}
        self.kube.ask("PATCH", f"/api/v1/nodes/{name}/status", body, "application/merge-patch+json")
        found = self.kube.ask("GET", f"/api/v1/nodes/{name}")
        assert {one["type"]: one["status"] for one in found["status"]["conditions"]} == rows
        assert not taint or taint in str(found["spec"]["taints"])

    def set_application(self, status: str) -> None:
        """What Serve says of the application."""
        row = {**APPLICATION, "status": status, "message": "a replica died"}
        self.chat.answers["/api/serve/applications/"] = Says(body={"applications": {"chat": row}})

    def cluster_of_chat(self) -> Object:
        """The RayCluster that serves."""
        return next(item for item in self._list("RayCluster") if item["metadata"]["labels"])

    @contextmanager
    def alive(self) -> Iterator[Living]:
        """Controllers work for as long as the block runs."""
        self._step()
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            self.namespace.clear()
            assert not self._trouble, self._trouble

    # Controllers.

    def _live(self) -> None:
        while not self._stop.wait(_LOOK_S):
            try:
                self._step()
            except AssertionError as error:  # somebody else was faster; a conflict is looked at again
                if "Conflict" not in str(error) and "AlreadyExists" not in str(error):
                    self._trouble.append(error)
                    return

    def _step(self) -> None:
        clusters = self._list("RayCluster")
        for item in clusters:
            if "deletionTimestamp" in item["metadata"]:
                self.namespace.patch("RayCluster", item["metadata"]["name"], {"metadata": {"finalizers": None}})
        live = [item for item in clusters if "deletionTimestamp" not in item["metadata"]]
        if self.operator_works:
            self._collect({item["metadata"]["uid"] for item in live})
            for item in live:
                self._keep_cluster(item)
            self._keep_service([item for item in live if item["metadata"].get("labels")])
        for _ in range(2 - len(self.pods("gateway"))):
            self._pod(f"gateway-{next(_numbers)}", "gateway", {"app.kubernetes.io/name": "gateway"})

    def _collect(self, uids: set[str]) -> None:
        """Garbage collection."""
        for pod in (*self.pods("head"), *self.pods("worker")):
            if pod["metadata"]["labels"]["owner"] not in uids:
                self.kube.ask("DELETE", self._path("pods", pod["metadata"]["name"]))

    def _keep_cluster(self, item: Object) -> None:
        name, uid = item["metadata"]["name"], item["metadata"]["uid"]
        labels = {"ray.io/cluster": name, "owner": uid}
        dashboard = self.dashboards[name.partition("-")[0]]
        if not self.pods("head", name):
            pod = self._pod(f"{name}-head", "head", labels | {"ray.io/node-type": "head"})
            if name in self.broken_heads and self._heads.get(name) == uid:
                self.break_pod(pod)
            else:
                self.broken_heads.discard(name)
                self._heads[name] = uid
                self._heal_dashboard(dashboard)
                self.serve.otherwise = Says()
        for _ in range(2 - len(self.pods("worker", name))):
            self._pod(f"{name}-w-{next(_numbers)}", "worker", labels | {"ray.io/node-type": "worker"})
        if not item.get("status"):
            status = {
                "conditions": [_condition("RayClusterProvisioned")],
                "state": "ready",
                "head": {"serviceName": dashboard.url.removeprefix("http://")},
                "desiredWorkerReplicas": 2,
                "readyWorkerReplicas": 2,
            }
            self.namespace.set_status("RayCluster", name, status)

    def _keep_service(self, clusters: list[Object]) -> None:
        service = self.namespace.get("RayService", "chat")
        if service is None:
            return
        if not clusters:
            labels = {"ray.io/originated-from-crd": "RayService", "ray.io/originated-from-cr-name": "chat"}
            name = f"chat-{next(_numbers)}"
            self.namespace.add("RayCluster", name, service["spec"]["rayClusterConfig"], metadata={"labels": labels})
            return
        active = clusters[0]["metadata"]["name"]
        if ((service.get("status") or {}).get("activeServiceStatus") or {}).get("rayClusterName") != active:
            status = {"conditions": [_condition("Ready")], "activeServiceStatus": {"rayClusterName": active}}
            self.namespace.set_status("RayService", "chat", status)
        config = service["spec"]["serveConfigV2"]
        if RESTARTED in config and config != self._restarted:
            self._restarted = config
            self._heal_dashboard(self.chat)

    def _heal_dashboard(self, one: Listener) -> None:
        applications = {"chat": APPLICATION} if one is self.chat else {}
        one.answers = {
            "/api/serve/applications/": Says(body={"applications": applications}),
            "/api/jobs/": Says(body=[]),
        }
        one.otherwise = Says(body="success")

    # Objects.

    def _make(self) -> None:
        pod = {"template": {"spec": {"containers": [{"name": "ray-head"}]}}}
        spec = {"rayVersion": "2.60.0", "enableInTreeAutoscaling": True, "headGroupSpec": pod, "workerGroupSpecs": []}
        self.namespace.add("RayCluster", "shared", spec)
        self.namespace.add("RayService", "chat", {"serveConfigV2": _SERVE_CONFIG, "rayClusterConfig": spec})
        for name in ("gateway", "kuberay-operator"):
            labels = {"app": name}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
            body = {"selector": {"matchLabels": labels}, "template": template}
            self.kube.ask("POST", self._path("deployments"), {"metadata": {"name": name}, "spec": body})
            self.set_deployment(name, 1)

    def set_deployment(self, name: str, available: int) -> None:
        """How many replicas of a Deployment are available."""
        self._set("deployments", name, {"replicas": 1, "readyReplicas": available, "availableReplicas": available})

    def _pod(self, name: str, role: str, labels: dict[str, str]) -> Object:
        containers = [{"name": "main", "image": "x"}]
        body = {"metadata": {"name": name, "labels": labels | {"role": role}}, "spec": {"containers": containers}}
        made: Object = self.kube.ask("POST", self._path("pods"), body)
        self._set("pods", name, self._pod_status(ready=True))
        return made

    def _pod_status(self, ready: bool) -> Object:
        container = {
            "name": "main", "ready": ready, "restartCount": 0, "image": "x", "imageID": "",
            "state": {"running": {"startedAt": now(seconds=60)}}, "lastState": {},
        }  # fmt: skip
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": now()}
        return {"phase": "Running", "conditions": [condition], "containerStatuses": [container]}

    def _list(self, kind: str) -> list[Object]:
        items: list[Object] = self.kube.ask("GET", self.namespace.path(kind))["items"]
        for item in items:
            item["metadata"].setdefault("labels", {})
        return items

    def _path(self, plural: str, name: str = "") -> str:
        root = {"deployments": "/apis/apps/v1", "jobs": "/apis/batch/v1"}.get(plural, "/api/v1")
        return f"{root}/namespaces/{self.namespace.name}/{plural}" + (f"/{name}" if name else "")

    def _get(self, plural: str, name: str) -> Object:
        found: Object = self.kube.ask("GET", self._path(plural, name))
        return found

    def _set(self, plural: str, name: str, status: Object) -> None:
        path = f"{self._path(plural, name)}/status"
        self.kube.ask("PATCH", path, {"status": status}, "application/merge-patch+json")


def rounds(checker: Checker, until: Callable[[Report], bool], timeout_s: float = 30) -> list[Report]:
    """Rounds until one is as wanted. Fails after `timeout_s`, showing the last."""
    reports: list[Report] = []
    ends_s = time.monotonic() + timeout_s
    while not reports or not until(reports[-1]):
        assert time.monotonic() < ends_s, reports[-1]
        if reports:
            time.sleep(0.1)
        reports.append(checker.round(lambda: None))
    return reports


def audit_of(living: Living, settings: OpsSettings) -> list[Object]:
    """The audit log in the store, in its order."""
    objects = open_objects(settings.store)
    return [json.loads(objects.get(name)) for name in sorted(stored.name for stored in objects.list("audit/"))]


def _condition(kind: str) -> Object:
    return {"type": kind, "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": now(hours=1)}
