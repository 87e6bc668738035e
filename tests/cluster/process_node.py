"""A node whose pods really run: each container is a process of this machine, under its own service account's token.

What a kubelet does and this does: environment from fields, Secrets and literals, ConfigMaps as files, init
containers first, a token that the API server makes for this pod, status and exit codes, deletion. What differs,
because there is no image and no network of the cluster's own: paths of mounts are other paths, in commands too, names
of Services are this machine's address, and pods after the first get other ports where a command names them.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.charts.helm import ROOT
from tests.cluster import control_plane
from tests.cluster.kube import Kube, Object, path, stamp

NAME = "processes"
_NODE = f"/api/v1/nodes/{NAME}"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_SERVICE = re.compile(r"\b[a-z0-9-]+\.[a-z0-9-]+\.svc\.cluster\.local\b")
_PORT = re.compile(r"(--(?:dashboard-agent-listen|metrics-export)-port=)(\d+)")


class ProcessNode:
    """The node. `outside` maps addresses that pods are given to where that service is here."""

    def __init__(self, kube: Kube, folder: Path, outside: Mapping[str, str]) -> None:
        self._kube, self._folder, self._outside = kube, folder, dict(outside)
        self._address = control_plane.own_address()
        self._mounts: dict[str, Path] = {}
        self._running: dict[str, _Pod] = {}
        self._stop = threading.Event()
        self._ray = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        """Ray's own files: paths of sockets must be short."""

    @contextmanager
    def running(self) -> Iterator[ProcessNode]:
        """Register the node and run what is scheduled on it; end all of it afterwards."""
        self._register()
        threads = [threading.Thread(target=act, daemon=True) for act in (self._stay_alive, self._follow)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for pod in list(self._running.values()):
                pod.kill()
            self._kube.ask("DELETE", _NODE)
            for thread in threads:
                thread.join()
            self._ray.cleanup()

    def log(self, pod: str) -> str:
        """What a pod's containers wrote so far."""
        return "".join(file.read_text(errors="replace") for file in sorted(self._folder.glob(f"{pod}.*.log")))

    def _register(self) -> None:
        capacity = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "4Ti", "pods": "100"}
        now = stamp()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                 "lastHeartbeatTime": now, "lastTransitionTime": now}  # fmt: skip
        addresses = [{"type": "InternalIP", "address": self._address}]
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready], "addresses": addresses}
        self._kube.ask("POST", "/api/v1/nodes", {"metadata": {"name": NAME}, "status": status})

    def _stay_alive(self) -> None:
        """Renew the node's Lease, as every kubelet does."""
        self._kube.answer("DELETE", f"{_LEASES}/{NAME}")
        spec = {"holderIdentity": NAME, "leaseDurationSeconds": 6}
        while not self._stop.is_set():
            renewed = {"spec": spec | {"renewTime": stamp(micro=True)}}
            if self._kube.answer("PATCH", f"{_LEASES}/{NAME}", renewed, Kube.MERGE).status == 404:
                self._kube.answer("POST", _LEASES, {"metadata": {"name": NAME}} | renewed)
            self._stop.wait(2)

    def _follow(self) -> None:
        """Start pods that are new here, and end those that are told to go."""
        where = f"/api/v1/pods?fieldSelector=spec.nodeName={NAME}"
        while not self._stop.is_set():
            for body in self._kube.changes(where, timeout_s=2):
                uid = body["metadata"]["uid"]
                if body["metadata"].get("deletionTimestamp"):
                    if uid in self._running:
                        self._running.pop(uid).end()
                elif uid not in self._running and "command" in body["spec"]["containers"][0]:
                    # Without a command it would run what its image says, and there are no images.
                    pod = self._running[uid] = _Pod(self._kube, body, self._folder, len(self._running), self._ray.name)
                    pod.prepare(self._mounts, self._outside, self._address)
                    threading.Thread(target=pod.run, daemon=True).start()


class _Pod:
    """One pod."""

    def __init__(self, kube: Kube, body: Object, folder: Path, number: int, ray: str) -> None:
        self._kube, self._body, self._folder, self._number, self._ray = kube, body, folder, number, ray
        self._name, self._namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        self._path = path(self._namespace, "pods", self._name)
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def prepare(self, mounts: dict[str, Path], outside: dict[str, str], address: str) -> None:
        """Write the volumes that have content; where they are goes into `mounts`, for the pods after this one too: a
        submitter's command names files of the head."""
        self._mounts, self._outside, self._address = mounts, outside, address
        home = self._folder / self._name
        home.mkdir(parents=True, exist_ok=True)
        maps = {v["name"]: v["configMap"]["name"] for v in self._body["spec"]["volumes"] if "configMap" in v}
        for mount in self._body["spec"]["containers"][0].get("volumeMounts", []):
            if mount["name"] in maps:
                data = self._kube.ask("GET", path(self._namespace, "configmaps", maps[mount["name"]]))["data"]
                target = home / mount["name"]
                target.mkdir(exist_ok=True)
                for key, text in data.items():
                    (target / key).write_text(text, encoding="utf-8")
                mounts[mount["mountPath"]] = target
            elif mount["mountPath"] == "/scratch":
                mounts["/scratch"] = home
        self._token = self._kubeconfig(home)

    def run(self) -> None:
        """Run init containers, then the first container; the others are the operator's helpers."""
        spec = self._body["spec"]
        for container in spec.get("initContainers", []):
            if self._start(container).wait() != 0:
                self._report("Failed", container, 1)
                return
        main = spec["containers"][0]
        process = self._start(main)
        self._report("Running", main)
        code = process.wait()
        if not self._ending:
            self._report("Succeeded" if code == 0 else "Failed", main, code)

    def end(self) -> None:
        """End it as a deleted pod, and say that it is gone."""
        self._ending = True
        self.kill()
        self._kube.answer("DELETE", f"{self._path}?gracePeriodSeconds=0")

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self, container: Object) -> subprocess.Popen[bytes]:
        command = [self._here(part) for part in [*container.get("command", []), *container.get("args", [])]]
        if command[0] == "python":
            command[0] = sys.executable
        with (self._folder / f"{self._name}.{container['name']}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(container), stdout=log, stderr=log, start_new_session=True
            )
        return self._process

    def _environment(self, container: Object) -> dict[str, str]:
        tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        found = {"PATH": tools, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "KUBECONFIG": str(self._token)}
        found |= {"RAY_TMPDIR": self._ray, "PYTHONDONTWRITEBYTECODE": "1"}
        for entry in container.get("env", []):
            found[entry["name"]] = self._here(self._value(entry))
        return found

    def _value(self, entry: Object) -> str:
        match entry.get("valueFrom") or {}:
            case {"fieldRef": {"fieldPath": str(field)}}:
                if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", field):
                    return str(self._body["metadata"]["labels"][label[1]])
                values = {"metadata.name": self._name, "metadata.namespace": self._namespace}
                return values.get(field, self._address)
            case {"secretKeyRef": {"name": str(name), "key": str(key)}}:
                data = self._kube.ask("GET", path(self._namespace, "secrets", name))["data"]
                return base64.b64decode(data[key]).decode()
            case _:
                return str(entry.get("value", ""))

    def _here(self, text: str) -> str:
        """What a text of the pod's means on this machine."""
        for address, here in self._outside.items():
            text = text.replace(address, here)
        for mount, folder in self._mounts.items():
            text = re.sub(rf"(?<![\w/]){re.escape(mount)}(?=[/\s]|$)", str(folder), text)
        text = _SERVICE.sub(self._address, text)
        return _PORT.sub(lambda found: f"{found[1]}{int(found[2]) + self._number}", text)

    def _kubeconfig(self, home: Path) -> Path:
        """The API server's token for this very pod, where it mounts one; an empty kubeconfig otherwise."""
        file = home / "kubeconfig"
        mounts = [v for v in self._body["spec"]["volumes"] if v["name"].startswith("kube-api-access-")]
        tree: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
        if mounts:
            account = path(self._namespace, "serviceaccounts", self._body["spec"]["serviceAccountName"])
            bound = {"kind": "Pod", "name": self._name, "apiVersion": "v1", "uid": self._body["metadata"]["uid"]}
            asked = {"spec": {"boundObjectRef": bound, "expirationSeconds": 3600}}
            token = self._kube.ask("POST", f"{account}/token", asked)["status"]["token"]
            tree = yaml.safe_load(self._kube.path.read_text())
            tree["users"][0]["user"] = {"token": token}
        file.write_text(yaml.safe_dump(tree))
        return file

    def _report(self, phase: str, container: Object, code: int | None = None) -> None:
        now = stamp()
        up = phase == "Running"
        state = {"running": {"startedAt": now}} if up else {
            "terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error",
                           "startedAt": now, "finishedAt": now}}  # fmt: skip
        rest = [other for other in self._body["spec"]["containers"] if other is not container]
        statuses = [
            {"name": it["name"], "image": it["image"], "imageID": "", "ready": up, "restartCount": 0, "state": state}
            for it in (container, *rest)
        ]
        conditions = [
            {"type": name, "status": str(up), "lastTransitionTime": now} for name in ("ContainersReady", "Ready")
        ]
        status = {"phase": phase, "conditions": conditions, "containerStatuses": statuses, "startTime": now}
        status |= {"podIP": self._address, "podIPs": [{"ip": self._address}]}
        self._kube.answer("PATCH", f"{self._path}/status", {"status": status}, Kube.STRATEGIC)
