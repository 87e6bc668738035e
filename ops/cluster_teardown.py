"""Delete from a cluster what makes cloud resources outside of Terraform: Ray's workloads, load balancers, volumes."""

import json
import subprocess
from dataclasses import dataclass

from jobs.errors import RemoteError

TIMEOUT_S = 900
RAY_KINDS = ("rayjobs.ray.io", "rayservices.ray.io", "rayclusters.ray.io")
"""Jobs and services first: they own clusters and would make them again."""


@dataclass(frozen=True)
class ClusterTeardown:
    """Steps on the cluster behind one kubectl context. Each waits until what it deleted is gone."""

    context: str
    timeout_s: int = TIMEOUT_S

    def delete_ray(self) -> None:
        """Delete every Ray workload, so that no autoscaler and no operator works against what follows."""
        for kind in RAY_KINDS:
            if self._kubectl("get", "customresourcedefinitions", kind, "--ignore-not-found", "--output=name"):
                self._delete(kind, "--all", "--all-namespaces")

    def delete_load_balancers(self) -> None:
        """Delete Ingresses and Services of type LoadBalancer while their controllers still run."""
        self._delete("ingresses.networking.k8s.io", "--all", "--all-namespaces")
        services = json.loads(self._kubectl("get", "services", "--all-namespaces", "--output=json"))["items"]
        for service in services:
            if service["spec"].get("type") == "LoadBalancer":
                metadata = service["metadata"]
                self._delete("services", metadata["name"], f"--namespace={metadata['namespace']}")

    def request_volume_deletion(self) -> None:
        """Mark every claim for deletion; those in use go when Helm removes their pods."""
        self._kubectl("delete", "persistentvolumeclaims", "--all", "--all-namespaces", "--wait=false")

    def wait_for_volumes(self) -> None:
        """Wait until the storage driver has deleted the disks of all claims; it dies with the cluster."""
        if self._kubectl("get", "persistentvolumes", "--output=name"):
            self._kubectl("wait", "--for=delete", "persistentvolumes", "--all", f"--timeout={self.timeout_s}s")

    def _delete(self, kind: str, *what: str) -> None:
        self._kubectl("delete", kind, *what, "--ignore-not-found", "--wait", f"--timeout={self.timeout_s}s")

    def _kubectl(self, verb: str, *arguments: str) -> str:
        command = ["kubectl", f"--context={self.context}", verb, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["failed"])[-1]
            look = f"a finalizer holds it: see `kubectl --context={self.context} get {arguments[0]} -A -o yaml`"
            raise RemoteError(f"kubectl {verb} {arguments[0]}: {said}{'; ' + look if 'timed out' in said else ''}")
        return done.stdout
