"""The little of the Kubernetes API that a run needs: is everything there, what is there about a run, its log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.cluster.diagnosis import Object, Observed, Operator
from jobs.cluster.profile import Profile
from jobs.errors import EnvironmentNotReady, RemoteError, UsageError

GROUP, VERSION = "ray.io", "v1"

_ORIGIN = "ray.io/originated-from-cr-name"
_OPERATOR = "app.kubernetes.io/name=kuberay-operator"
_CONNECT_S, _READ_S = 5, 30
_BUSY = {429, 503, 504}
_NEEDED = (
    ("create", GROUP, "rayjobs"),
    ("watch", GROUP, "rayjobs"),
    ("create", "", "configmaps"),
    ("create", "", "secrets"),  # where Helm keeps a release
    ("list", "", "pods"),
    ("list", "", "events"),
)


class Gone(RemoteError):
    """The API server forgot where a watch was (410); list again."""


class Cluster:
    """One namespace of the cluster behind a profile's context.

    Raises EnvironmentNotReady when the kubeconfig, its context or a permission is missing, RemoteError when the API
    server does not answer.
    """

    def __init__(self, profile: Profile) -> None:
        from kubernetes import client, config
        from urllib3 import Retry

        self.namespace = profile.namespace
        self.context = profile.kube_context
        settings = client.Configuration()
        # No connection is an error at once, which says what to do; a server that is busy for a moment is asked again.
        settings.retries = Retry(
            0, status=3, status_forcelist=_BUSY, allowed_methods={"GET"}, backoff_factor=0.5, raise_on_status=False
        )
        try:
            config.load_kube_config(_kubeconfig(), profile.kube_context, settings)
        except config.ConfigException as error:
            raise EnvironmentNotReady(_no_context(profile.kube_context, str(error))) from None
        self._api = client.ApiClient(settings)
        self.server = settings.host

    def check(self) -> None:
        """Prove that a run can be handed in here. Raises EnvironmentNotReady naming what is missing."""
        self._get("/version")
        try:
            self._get(f"/api/v1/namespaces/{self.namespace}")
        except Forbidden:
            pass  # who may only use one namespace cannot look at it from outside
        except NotThere:
            raise EnvironmentNotReady(
                f"{self.context}: there is no namespace {self.namespace}; `make apply` makes it"
            ) from None
        try:
            self._get(self._ray("rayjobs"), limit="1")
        except NotThere:
            raise EnvironmentNotReady(
                f"{self.context}: has no RayJobs; `make crds` and `make apply` install KubeRay"
            ) from None
        missing = [f"{verb} {resource}" for verb, group, resource in _NEEDED if not self._may(verb, group, resource)]
        if missing:
            raise Forbidden(
                f"{self.context}: you may not {', '.join(missing)} in namespace {self.namespace}; "
                "ask who runs the cluster for a role that may"
            )

    def job(self, run_id: str) -> Object | None:
        """The RayJob of a run."""
        try:
            return self._get(f"{self._ray('rayjobs')}/{run_id}")
        except NotThere:
            return None

    def listing(self, kind: str, run_id: str) -> tuple[list[Object], str]:
        """Objects of `kind` (rayjobs, rayclusters, pods, events) that can be about a run, and where to watch from."""
        answer = self._get(self._path(kind), **_selector(kind, run_id))
        return list(answer["items"]), answer["metadata"]["resourceVersion"]

    def watch(self, kind: str, run_id: str, version: str, timeout_s: int) -> Iterator[tuple[str, Object]]:
        """Changes after `version` as (ADDED, MODIFIED or DELETED; object), until `timeout_s` have passed.

        Raises Gone if `version` is too old to go on from.
        """
        query = _selector(kind, run_id) | {"watch": "true", "resourceVersion": version, "timeoutSeconds": timeout_s}
        response = self._call("GET", self._path(kind), query, read_s=timeout_s + _READ_S)
        try:
            with self._explained():
                for line in _lines(response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise (Gone if event["object"].get("code") == 410 else RemoteError)(str(event["object"]))
                    yield event["type"], event["object"]
        finally:
            response.close()

    def wait_gone(self, run_id: str, timeout_s: int) -> None:
        """Wait until a RayJob that was deleted is gone. Raises RemoteError if something holds it."""
        found, version = self.listing("rayjobs", run_id)
        if not found:
            return
        if all(change != "DELETED" for change, _ in self.watch("rayjobs", run_id, version, timeout_s)):
            raise RemoteError(
                f"{self.context}: RayJob {run_id} is still being deleted after {timeout_s} s; the KubeRay operator "
                "holds it until it has cleaned up, is it there?"
            )

    def log(self, pod: str, *, follow: bool, since: str = "") -> Iterator[tuple[str, str]]:
        """Lines of a pod's log after the time stamp `since`, each with its own; with `follow` as they come.

        Raises NotThere for a pod that is gone.
        """
        query = (
            {"timestamps": "true"} | ({"follow": "true"} if follow else {}) | ({"sinceTime": since} if since else {})
        )
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        response = self._call("GET", path, query, read_s=None if follow else _READ_S)
        try:
            with self._explained():
                for line in _lines(response):
                    stamp, _, text = line.decode(errors="replace").partition(" ")
                    if stamp > since:  # the server knows whole seconds only
                        yield stamp, text
        finally:
            response.close()

    def operators(self) -> tuple[Operator, ...] | None:
        """The KubeRay operator's Deployments; None if this user may not see them."""
        try:
            found = self._get("/apis/apps/v1/deployments", labelSelector=_OPERATOR)["items"]
        except Forbidden:
            return None
        return tuple(
            Operator(
                f"{item['metadata']['namespace']}/{item['metadata']['name']}",
                item["spec"].get("replicas", 1),
                (item.get("status") or {}).get("availableReplicas") or 0,
            )
            for item in found
        )

    def observe(self, run_id: str) -> Observed:
        """Everything about a run at once."""
        found = self.about(run_id, {kind: self.listing(kind, run_id)[0] for kind in KINDS})
        return replace(found, operators=self.operators())

    def about(self, run_id: str, kinds: dict[str, list[Object]]) -> Observed:
        """Of what the API has in this namespace, what is about one run."""
        job = next(iter(kinds["rayjobs"]), None)
        names = {cluster["metadata"]["name"] for cluster in kinds["rayclusters"]}
        pods = [pod for pod in kinds["pods"] if _belongs(pod, run_id, names)]
        known = {run_id, *names, *(pod["metadata"]["name"] for pod in pods)}
        events = [
            event
            for event in kinds["events"]
            if (name := event["involvedObject"].get("name", "")) in known or name.startswith(f"rayjob-{run_id}-")
        ]
        return Observed(job, tuple(kinds["rayclusters"]), tuple(pods), tuple(events))

    def _ray(self, plural: str) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{plural}"

    def _path(self, kind: str) -> str:
        return self._ray(kind) if kind.startswith("ray") else f"/api/v1/namespaces/{self.namespace}/{kind}"

    def _may(self, verb: str, group: str, resource: str) -> bool:
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._call("POST", path, {}, body | {"spec": {"resourceAttributes": asked}})
        return bool(json.loads(answer.data)["status"]["allowed"])

    def _get(self, path: str, **query: str) -> Object:
        with self._explained():
            found: Object = json.loads(self._call("GET", path, query).data)
        return found

    def _call(
        self, method: str, path: str, query: dict[str, Any], body: Object | None = None, read_s: float | None = _READ_S
    ) -> Any:
        """One request with the kubeconfig's authentication. The answer's body is not read yet."""
        from kubernetes.client import ApiException

        with self._explained():
            request = self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._api.call_api(*request, _request_timeout=(_CONNECT_S, read_s)).response
            if not 200 <= answer.status < 300:
                raise ApiException(status=answer.status, body=answer.data)
            return answer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise _explain(error.status, error.body, f"{self.context} ({self.server})") from None
        except (HTTPError, OSError) as error:
            cause = getattr(error, "reason", None) or error
            raise RemoteError(
                f"{self.context}: the API server {self.server} does not answer ({cause}); check network, VPN, or "
                "whether the cluster runs"
            ) from None


KINDS = ("rayjobs", "rayclusters", "pods", "events")
"""Kinds that `Cluster.about` looks through."""


class Forbidden(EnvironmentNotReady):
    """The user of the kubeconfig may not do that. Exit code 3."""


class NotThere(UsageError):
    """An object or a kind of objects that the API does not have. Exit code 2."""


def submitter_pods(observed: Observed) -> list[Object]:
    """The pods that handed the job to Ray and print its log, oldest first."""
    found = [pod for pod in observed.pods if not (pod["metadata"].get("labels") or {}).get("ray.io/cluster")]
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def age_s(job: Object | None, now: datetime) -> float:
    """Seconds since an object was made; 0 without one."""
    if job is None:
        return 0.0
    return (now - datetime.fromisoformat(job["metadata"]["creationTimestamp"]).astimezone(UTC)).total_seconds()


def _selector(kind: str, run_id: str) -> dict[str, str]:
    match kind:
        case "rayjobs":
            return {"fieldSelector": f"metadata.name={run_id}"}
        case "rayclusters":
            return {"labelSelector": f"{_ORIGIN}={run_id}"}
        case _:
            return {}


def _belongs(pod: Object, run_id: str, clusters: set[str]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get("ray.io/cluster") in clusters or run_id in (labels.get(_ORIGIN), labels.get("job-name"))


def _lines(response: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(amt=None, decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _explain(status: int, body: Any, where: str) -> Exception:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text.strip()
    match status:
        case 401:
            return EnvironmentNotReady(
                f"{where}: your credentials are not accepted; log in again (AWS: `aws sso login`, then "
                "`aws eks update-kubeconfig`)"
            )
        case 403:
            return Forbidden(f"{where}: you may not do that: {message}")
        case 404:
            return NotThere(f"{where}: {message}")
        case 410:
            return Gone(message)
        case _:
            return RemoteError(f"{where}: the API server answered {status}: {message}")


def _kubeconfig() -> str | None:
    """Asked each time, as kubectl and helm do; the client's own default is from when it was imported."""
    return os.environ.get("KUBECONFIG")


def _no_context(context: str, reason: str) -> str:
    import difflib

    from kubernetes import config

    try:
        known = [entry["name"] for entry in config.list_kube_config_contexts(_kubeconfig())[0]]
    except config.ConfigException as error:
        return f"no usable kubeconfig ({error}); `aws eks update-kubeconfig` or `kind export kubeconfig` writes one"
    if context in known:
        return f"the kubeconfig's context {context} cannot be used: {reason}"
    near = difflib.get_close_matches(context, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    return f"the kubeconfig has no context {context}; {hint} The profile's kube_context names it"
