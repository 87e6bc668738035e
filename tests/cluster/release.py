"""A release of the platform's chart, and what of it is in the cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.charts.helm import Helm
from tests.cluster.kube import Kube, Object

_PASSING = {"events", "leases", "endpoints", "endpointslices", "pods"}
"""Kinds whose objects come and go by themselves, and virtual ones."""


@dataclass(frozen=True)
class Release:
    """One release in a namespace of its own."""

    kube: Kube
    helm: Helm
    name: str
    namespace: str

    def make_namespace(self) -> None:
        """As `make apply` makes it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
        body = {"metadata": {"name": self.namespace, "labels": labels}}
        self.kube.ask("POST", "/api/v1/namespaces", body)

    def upgrade(self, values: Object, *files: str, chart: Path | None = None) -> str:
        """Install or upgrade; what helm said. Hooks have ended when it returns."""
        chart = chart or self.helm.charts / "haetsal"
        options = [part for file in files for part in ("--values", str(chart / file))]
        command = ["upgrade", "--install", "--force-conflicts", self.name, str(chart)]  # as the chart's README says
        return self.run(*command, *options, "--values", "-", values=values)

    def run(self, *arguments: str, values: Object | None = None) -> str:
        """Any command of helm on this namespace."""
        where = ["--namespace", self.namespace, "--kubeconfig", str(self.kube.path)]
        done = self.helm.run(*arguments, *where, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def objects(self) -> dict[str, Object]:
        """What the release's manifest names, as the API server has it now."""
        parts: dict[str, list[Object]] = {}
        for body in yaml.safe_load_all(self.run("get", "manifest", self.name)):
            if body:
                parts.setdefault(body["metadata"].get("namespace", self.namespace), []).append(body)
        found = {}
        for namespace, bodies in parts.items():  # with -n, kubectl takes no other namespace's
            text = yaml.safe_dump_all(bodies)
            said = self.kube.kubectl("get", "--filename", "-", "--output", "json", "-n", namespace, stdin=text)
            for item in json.loads(said.stdout)["items"]:
                found[f"{item['kind']}/{item['metadata']['name']}"] = item
        return found

    def versions(self) -> dict[str, tuple[str, Any]]:
        """What changes when somebody changes an object: its uid, and the generation of its spec or all its data; of a
        Deployment all but the number of its pods, which is the autoscaler's to change."""
        return {name: (item["metadata"]["uid"], _version(item)) for name, item in self.objects().items()}

    def remains(self) -> set[str]:
        """Everything in the namespace, of every kind that the cluster knows, and what carries the release's label
        outside of it."""
        found = set()
        for scope in ("true", "false"):
            said = self.kube.kubectl("api-resources", "--verbs=list,delete", f"--namespaced={scope}", "-o", "name")
            kinds = ",".join(kind for kind in said.stdout.split() if kind.partition(".")[0] not in _PASSING)
            mine = ["-n", self.namespace] if scope == "true" else ["-l", f"app.kubernetes.io/instance={self.name}"]
            found |= set(self.kube.kubectl("get", kinds, "-o", "name", *mine).stdout.split())
        return found


def _version(item: Object) -> Any:
    if item["kind"] == "Deployment":
        return {key: value for key, value in item["spec"].items() if key != "replicas"}
    return item["metadata"].get("generation") or item.get("data") or item.get("rules")
