"""A shared Ray cluster in a namespace of its own, and the health checker that looks after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from ops.backup.objects import open_objects
from ops.backup.run import Result, backup
from ops.backup.sealing import Sealing
from ops.health.finding import Id
from ops.health.gather import Gatherer
from ops.health.observed import Observed
from ops.health.rounds import Checker, Report
from ops.kube import Cluster
from ops.recovery.act import PlatformRepairer
from ops.recovery.memory import ConfigMapStore
from ops.settings import OpsSettings
from tests.charts.helm import Helm, only
from tests.cluster import kwok
from tests.cluster.control_plane import OPERATOR_NAMESPACE
from tests.cluster.dashboard import Dashboard
from tests.cluster.kube import Kube, Object, named, path, stamp, up

_INTERVAL_S = 0.3
_LONGEST_S = 120
NAME = "shared"
ZONE = "faults"
DOOMED = kwok.node(f"{ZONE}-1", zone=ZONE, kubelet=kwok.DOOMED)
SPARE = kwok.node(f"{ZONE}-2", zone=ZONE)
"""Nodes where its workers may be; the first is the only one to begin with."""


class Fleet:
    """The cluster, as the chart's templates make one: a head, and one worker on a node that may go away."""

    def __init__(self, kube: Kube, charts: Helm, namespace: str, dashboard: Dashboard, store: str) -> None:
        self.kube, self.namespace, self.dashboard, self._store = kube, namespace, dashboard, store
        kwok.add(kube, DOOMED)
        kube.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        kube.ask("POST", path(namespace, "serviceaccounts"), {"metadata": {"name": "train"}})
        values = {"config": "train: {epochs: 1}\n", "workers": {"training": {"min": 1, "max": 1}}}
        job = only(charts.render("ray-job", values, "values-kind.yaml"), "RayJob")
        spec = deepcopy(job["spec"]["rayClusterSpec"])  # the rendered one is everybody's
        spec["enableInTreeAutoscaling"] = False  # KWOK's heads would never answer the autoscaler's questions
        spec["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"] = {kwok.ZONE: ZONE}
        elsewhere = kwok.POOLS[0]["metadata"]["labels"][kwok.ZONE]  # or a new head may go down with the worker's node
        spec["headGroupSpec"]["template"]["spec"]["nodeSelector"] = {kwok.ZONE: elsewhere}
        body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": NAME}, "spec": spec}
        kube.ask("POST", path(namespace, "rayclusters"), body)
        kube.wait(self.one, up)

    @property
    def one(self) -> str:
        """Path of a list with the cluster alone."""
        return named(self.namespace, "rayclusters", NAME)

    def settings(self, **changed: Any) -> OpsSettings:
        """Short times; `section__key` changes one."""
        tree: dict[str, dict[str, Any]] = {
            "cluster": {"namespace": self.namespace, "dashboard": self.dashboard.url, "lease_s": 60},
            "store": {"root": self._store},
            "health": {"clusters": [NAME], "drill_age_s": None, "deadline_s": 10, "probe_timeout_s": 2},
            "recovery": {
                "confirm_s": 0, "recreate_after_s": 0, "window_s": 1, "backoff_max_s": 1, "gone_s": 2, "calm_s": 900,
                "flaps": 100,
            },
        }  # fmt: skip
        for key, value in changed.items():
            section, _, name = key.partition("__")
            tree[section][name] = value
        return OpsSettings.model_validate(tree)

    def back_up(self, **changed: Any) -> Result:
        """Make a backup."""
        settings = self.settings(**changed)
        return backup(settings, Cluster(settings.cluster), open_objects(settings.store), Sealing())

    def checker(self, **changed: Any) -> Checker:
        """What `make health REPAIR=1` starts, with no memory of earlier repairs."""
        self.kube.ask("DELETE", path(self.namespace, "configmaps", "haetsal-health"))
        settings = self.settings(**changed)
        cluster, objects = Cluster(settings.cluster), open_objects(settings.store)
        gatherer = Gatherer(settings, cluster, objects, Sealing())
        repairer = PlatformRepairer(settings, cluster, objects, Sealing())
        return Checker(settings, gatherer.look, ConfigMapStore(cluster, self.namespace), repairer, (), objects)

    def look(self) -> Observed:
        """One look at everything, which takes as long as the settings say, whatever does not answer."""
        settings = self.settings()
        return Gatherer(settings, Cluster(settings.cluster), open_objects(settings.store), Sealing()).look()

    def audited(self) -> list[str]:
        """Entries of the audit log so far."""
        return sorted(stored.name for stored in open_objects(self.settings().store).list("audit/"))

    def pods(self, role: str) -> list[Object]:
        """Its pods of a role that nobody has told to go."""
        where = path(self.namespace, "pods", selector=f"labelSelector=ray.io/cluster={NAME},ray.io/node-type={role}")
        return [pod for pod in self.kube.items(where) if "deletionTimestamp" not in pod["metadata"]]

    def head(self) -> Object:
        """Its head."""
        (found,) = self.pods("head")
        return found

    def crash(self, pod: Object) -> None:
        """Report what a kubelet reports of a container that keeps ending."""
        statuses = pod["status"]["containerStatuses"]
        statuses[0] |= {"ready": False, "restartCount": 7, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        set_ready(self.kube, pod, False, containerStatuses=statuses)


def set_operator_ready(kube: Kube, ready: bool) -> None:
    """Report what the kubelet of the operator's pod would."""
    (pod,) = kube.items(path(OPERATOR_NAMESPACE, "pods"))
    set_ready(kube, pod, ready)
    kube.wait(path(OPERATOR_NAMESPACE, "deployments"), lambda it: bool(it["status"].get("availableReplicas")) is ready)


def set_ready(kube: Kube, pod: Object, ready: bool, **more: Any) -> None:
    """Change a pod's conditions, and more of its status."""
    now = stamp()
    conditions = [
        {"type": name, "status": str(ready), "lastTransitionTime": now} for name in ("ContainersReady", "Ready")
    ]
    where = path(pod["metadata"]["namespace"], "pods", pod["metadata"]["name"]) + "/status"
    kube.ask("PATCH", where, {"status": {"conditions": conditions} | more}, Kube.STRATEGIC)


class Rounds:
    """Looks of one checker, one after the other, as its watch makes them."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self.found: set[Id] = set()
        self.outcomes: list[str] = []
        """Of all repairs so far."""

    def once(self) -> Report:
        """One round."""
        report = self._checker.round(lambda: None)
        self.found |= {one.id for one in report.findings}
        self.outcomes += report.outcomes.values()
        return report

    def until(self, what: Callable[[Report], bool]) -> Report:
        """Look, and repair, until a round is as wanted."""
        deadline_s = time.monotonic() + _LONGEST_S
        while not what(last := self.once()):
            assert time.monotonic() < deadline_s, [str(one) for one in last.decisions]
            threading.Event().wait(_INTERVAL_S)
        return last

    def until_found(self, *ids: Id) -> None:
        """Until each of these was found by some round."""
        self.until(lambda _: self.found >= set(ids))

    def until_done(self, outcome: str) -> None:
        """Until a repair had this outcome."""
        self.until(lambda _: any(one.startswith(outcome) for one in self.outcomes))

    def until_healthy(self) -> None:
        """Until nothing is wrong, the checker's own memory included."""
        self.until(lambda last: not last.findings and not last.problems)
