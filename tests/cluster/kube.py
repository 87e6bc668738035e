"""A cluster as tests use it: single requests with any account's rights, kubectl, and waiting on watches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config

Object = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else str(self.body)


class Kube:
    """One cluster, by its kubeconfig. The methods of tests/ops' own `Kube` are here too."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"

    def __init__(self, kubeconfig: Path) -> None:
        self.path = kubeconfig
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        settings.connection_pool_maxsize = 32
        self.url = str(settings.host)
        self._api = client.ApiClient(settings)

    def kubeconfig(self, path: Path, url: str | None = None) -> Path:
        """A copy of the kubeconfig at `path`."""
        assert url is None, "there is no proxy in these tests"
        return Path(shutil.copy(self.path, path))

    def ask(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """One request with all rights; fails on anything but success, None for 404."""
        answer = self.answer(method, path, body, content_type)
        if answer.status == 404:
            return None
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.message}"
        return answer.body

    def answer(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", account: str = ""
    ) -> Answer:
        """One request; `account`, namespace:name of a service account, sends it with that one's rights."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if account:
            headers["Impersonate-User"] = f"system:serviceaccount:{account}"  # its groups follow from the name
        request = self._api.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = self._api.call_api(*request, _request_timeout=30).response
        data = response.data
        try:
            return Answer(response.status, json.loads(data))
        except ValueError:
            return Answer(response.status, data.decode(errors="replace"))

    def items(self, path: str) -> list[Object]:
        """Everything that a list holds."""
        return list((self.ask("GET", path) or {"items": []})["items"])

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """kubectl with all rights."""
        command = [tool("kubectl"), "--kubeconfig", str(self.path), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done

    def wait(self, path: str, until: Callable[[Object], bool], timeout_s: float = 60) -> Object:
        """The first object of a list, now or to come, that `until` holds for; a watch says when to look.

        `path` may have a selector.
        """
        deadline = time.monotonic() + timeout_s
        seen: list[Object] = []
        while time.monotonic() < deadline:
            listed = self.ask("GET", path)
            seen = listed["items"]
            if found := next((item for item in seen if until(item)), None):
                return found
            left = max(1, round(deadline - time.monotonic()))
            for item in self._changes(path, listed["metadata"]["resourceVersion"], left):
                if until(item):
                    return item
        told = json.dumps([{"name": i["metadata"]["name"], "status": i.get("status")} for i in seen])[:3000]
        raise AssertionError(f"{path}: not within {timeout_s:g} s; there are {told}")

    def wait_gone(self, path: str, timeout_s: float = 60) -> None:
        """Wait until a list is empty."""
        deadline = time.monotonic() + timeout_s
        while items := (listed := self.ask("GET", path))["items"]:
            names = [item["metadata"]["name"] for item in items]
            assert time.monotonic() < deadline, f"{path}: {names} stay"
            for _ in self._changes(path, listed["metadata"]["resourceVersion"], 2):
                break

    def changes(self, path: str, timeout_s: int) -> Iterator[Object]:
        """Every object of a list, then each that changes, deleted ones as they were, for `timeout_s`."""
        listed = self.ask("GET", path)
        yield from listed["items"]
        yield from self._changes(path, listed["metadata"]["resourceVersion"], timeout_s)

    def _changes(self, path: str, version: str, timeout_s: int) -> Iterator[Object]:
        """Objects as they change, deleted ones as they were, for at most `timeout_s`."""
        mark = "&" if "?" in path else "?"
        query = f"{path}{mark}watch=true&resourceVersion={version}&timeoutSeconds={timeout_s}"
        request = self._api.param_serialize("GET", query, auth_settings=["BearerToken"])
        response = self._api.call_api(*request, _request_timeout=timeout_s + 10).response
        rest = b""
        while part := response.read1(65536):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["object"]


def tool(name: str) -> str:
    """A program beside Python, where `make setup` puts it, or on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed; `make setup` unpacks it"
    return found


def is_true(item: Object, condition: str) -> bool:
    """Whether an object has a condition with status True."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == condition and entry["status"] == "True" for entry in conditions)


def phase(*wanted: str) -> Callable[[Object], bool]:
    """Whether a RayJob's jobDeploymentStatus is one of these."""
    return lambda item: (item.get("status") or {}).get("jobDeploymentStatus") in wanted


def stamp(micro: bool = False) -> str:
    """Now, as the API server writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def up(item: Object) -> bool:
    """Whether the operator calls a RayCluster ready."""
    return (item.get("status") or {}).get("state") == "ready"


def named(namespace: str, plural: str, name: str) -> str:
    """Path of a list with one object at most, to wait for it."""
    return path(namespace, plural, selector=f"fieldSelector=metadata.name={name}")


def path(namespace: str, plural: str, name: str = "", selector: str = "") -> str:
    """Path of objects in a namespace, by plural: core, ray.io and the few other groups that tests look at."""
    groups: dict[str, Sequence[str]] = {
        "apis/ray.io/v1": ("rayclusters", "rayjobs", "rayservices", "raycronjobs"),
        "apis/batch/v1": ("jobs", "cronjobs"),
        "apis/policy/v1": ("poddisruptionbudgets",),
        "apis/apps/v1": ("deployments", "statefulsets"),
        "apis/rbac.authorization.k8s.io/v1": ("roles", "rolebindings"),
        "apis/coordination.k8s.io/v1": ("leases",),
        "apis/networking.k8s.io/v1": ("networkpolicies",),
    }
    root = next((group for group, plurals in groups.items() if plural in plurals), "api/v1")
    tail = (f"/{name}" if name else "") + (f"?{selector}" if selector else "")
    return f"/{root}/namespaces/{namespace}/{plural}{tail}"
