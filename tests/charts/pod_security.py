"""Pod Security Standard "restricted", as a program. Source: kubernetes.io, "Pod Security Standards", 1.35."""

from collections.abc import Iterator

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: dict) -> Iterator[str]:
    """What a pod (template) has that "restricted" forbids, one sentence each."""
    spec = pod["spec"]
    context = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    for volume in spec.get("volumes", []):
        for kind in set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    if context.get("runAsUser") == 0:
        yield "the pod runs as user 0"
    if context.get("sysctls"):
        yield "sysctls are set"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        yield from (f"container {container['name']}: {text}" for text in _container(container, context))


def _container(container: dict, pod_context: dict) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("privileged"):
        yield "is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("runAsNonRoot", pod_context.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("runAsUser", 1) == 0:
        yield "runs as user 0"
    if "ALL" not in context.get("capabilities", {}).get("drop", []):
        yield "capabilities are not dropped"
    for added in set(context.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capability {added} is added"
    profile = context.get("seccompProfile", pod_context.get("seccompProfile", {})).get("type")
    if profile not in _PROFILES:
        yield f"seccomp profile is {profile}"
    if context.get("procMount", "Default") != "Default":
        yield "procMount is not Default"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"host port {port['hostPort']}"
    if context.get("readOnlyRootFilesystem") is not True:  # ours, beyond the standard
        yield "the root file system is writable"
