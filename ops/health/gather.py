"""One look at everything. All effects of observing are here; a source that fails is named in `unseen`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from jobs.errors import HaetsalError
from ops.backup.objects import Objects, open_objects
from ops.backup.sealing import Sealing
from ops.health import facts
from ops.health.backups import Backups, last_drill
from ops.health.observed import Dashboard, Node, Observed, Probe, RayCluster, RayService
from ops.health.probes import Web, certificate_end
from ops.kinds import RAY
from ops.kube import Cluster, Missing, Object
from ops.settings import OpsSettings
from ops.together import run_together

Task = Callable[[], Any]
_TLS_PORT = 443


class Gatherer:
    """Looks at one platform."""

    def __init__(self, settings: OpsSettings, cluster: Cluster, objects: Objects, sealing: Sealing) -> None:
        self._settings, self._cluster = settings, cluster
        self._namespace = settings.cluster.namespace
        self._backups = Backups(objects, sealing)
        self._web = Web(settings.health.probe_timeout_s)
        roots = {root for root in (settings.store.root, settings.runs.root) if root}
        one_try = {"attempts": 1, "request_timeout_s": settings.health.probe_timeout_s}
        self._stores = {
            root: open_objects(settings.store.model_copy(update={"root": root} | one_try)) for root in roots
        }

    def look(self, unfinished: frozenset[str] = frozenset()) -> Observed:
        """What is there now. Takes at most `health.deadline_s`, whatever answers slowly."""
        deadline_s = self._settings.health.deadline_s / 2
        seen = _Seen(run_together(self._kubernetes() | self._services(), deadline_s))
        clusters = tuple(facts.ray_cluster(item) for item in seen.read("RayClusters", []))
        services = tuple(facts.ray_service(item) for item in seen.read("RayServices", []))
        dashboards, serving = self._ray(seen.read("RayClusters", []), clusters, services, deadline_s)
        return Observed(
            at=datetime.now(UTC),
            unseen=seen.unseen,
            operator=seen.read("operator", None),
            pods=tuple(facts.pod(item, seen.read("events", [])) for item in seen.read("pods", [])),
            clusters=clusters,
            services=services,
            jobs=facts.ray_jobs(seen.read("RayJobs", []), seen.read("submitters", [])),
            nodes=seen.read("nodes", ()),
            dashboards=dashboards,
            serving=serving,
            gateway=seen.probe("gateway"),
            tracking=seen.probe("tracking"),
            stores=tuple(Probe(root, seen.problem(f"store {root}")) for root in sorted(self._stores)),
            certificates={at: end for at in self._tls_places() if (end := seen.read(f"certificate of {at}", None))},
            backup=seen.read("backups", None),
            drill=seen.read("drill", None),
            unfinished=unfinished,
        )

    def _kubernetes(self) -> dict[str, Task]:
        kinds = {
            "pods": ("", "Pod"),
            "events": ("", "Event"),
            "RayClusters": (RAY, "RayCluster"),
            "RayServices": (RAY, "RayService"),
            "submitters": ("batch", "Job"),
        }
        tasks: dict[str, Task] = {
            name: partial(self._list, group, kind, self._namespace) for name, (group, kind) in kinds.items()
        }
        tasks["RayJobs"] = self._unfinished_jobs
        tasks["nodes"] = self._nodes
        tasks["operator"] = self._operator
        tasks["drill"] = partial(last_drill, self._cluster, self._namespace)
        return tasks

    def _services(self) -> dict[str, Task]:
        """What is beside Kubernetes."""
        health, uri = self._settings.health, self._settings.mlflow.uri
        tasks: dict[str, Task] = {"backups": self._backups.look}
        for root, objects in self._stores.items():
            tasks[f"store {root}"] = objects.now
        for place in self._tls_places():
            tasks[f"certificate of {place}"] = partial(certificate_end, place, health.probe_timeout_s)
        if health.gateway:
            tasks["gateway"] = partial(self._web.probe, f"{health.gateway}/readyz")
        if uri:
            tasks["tracking"] = partial(self._web.probe, f"{uri}/health")
        return tasks

    def _ray(
        self, items: Iterable[Object], clusters: Iterable[RayCluster], services: Iterable[RayService], deadline_s: float
    ) -> tuple[dict[str, Dashboard], dict[str, Probe]]:
        """Dashboards of the clusters that have a head, Serve's answers of the services that are up."""
        dashboards, serving = {}, {}
        tasks: dict[str, Task] = {}
        for item, row in zip(items, clusters, strict=True):
            service = ((item.get("status") or {}).get("head") or {}).get("serviceName")
            if service and not (row.suspended or row.leaving):
                address = self._settings.cluster.dashboard.format(service=service, namespace=self._namespace)
                dashboards[row.name] = address
                tasks[f"dashboard {row.name}"] = partial(self._web.dashboard, address)
        for service in services:
            if service.up and not (service.suspended or service.leaving):
                address = self._settings.health.serve.format(service=service.name, namespace=self._namespace)
                serving[service.name] = f"{address}/-/healthz"
                tasks[f"serve {service.name}"] = partial(self._web.probe, serving[service.name])
        found = _Seen(run_together(tasks, deadline_s))
        return (
            {
                name: found.read(f"dashboard {name}", Dashboard(Probe(address, found.problem(f"dashboard {name}"))))
                for name, address in dashboards.items()
            },
            {
                name: found.read(f"serve {name}", Probe(address, found.problem(f"serve {name}")))
                for name, address in serving.items()
            },
        )

    def _list(self, group: str, kind: str, namespace: str | None = None) -> list[Object]:
        return list(self._cluster.find_all(group, kind, namespace))

    def _unfinished_jobs(self) -> list[Object]:
        """Page by page: thousands of runs that have ended never are in memory together."""
        jobs = self._cluster.find_all(RAY, "RayJob", self._namespace)
        return [job for job in jobs if not facts.has_ended(job)]

    def _nodes(self) -> tuple[Node, ...]:
        """Page by page, too: what a node says of itself is a hundred times what is looked at."""
        return tuple(facts.node(item) for item in self._cluster.find_all("", "Node"))

    def _operator(self) -> Probe:
        namespace, _, name = self._settings.health.operator.partition("/")
        try:
            return facts.operator(self._cluster.get("apps", "Deployment", name, namespace))
        except Missing:
            return Probe(f"{namespace}/{name}", "its Deployment is not there")

    def _tls_places(self) -> tuple[str, ...]:
        server = urlsplit(self._cluster.server)
        own = (f"{server.hostname}:{server.port or _TLS_PORT}",) if server.scheme == "https" else ()
        return own + self._settings.health.certificates


class _Seen:
    """What came back of several questions."""

    def __init__(self, results: dict[str, Any]) -> None:
        self._results = results

    @property
    def unseen(self) -> dict[str, str]:
        """The questions without an answer. A store's silence is a finding of its own."""
        return {
            name: str(result)
            for name, result in self._results.items()
            if isinstance(result, HaetsalError) and not name.startswith("store ")
        }

    def problem(self, name: str) -> str:
        result = self._results[name]
        return str(result) if isinstance(result, HaetsalError) else ""

    def read(self, name: str, default: Any) -> Any:
        result = self._results.get(name, default)
        return default if isinstance(result, HaetsalError) else result

    def probe(self, name: str) -> Probe | None:
        """A probe that was asked for; one that came too late has that as its problem."""
        return None if name not in self._results else self.read(name, Probe(name, self.problem(name)))
