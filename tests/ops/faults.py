"""Every fault that the checker knows: how it is made and proved, what must be found, and whether it is repaired.

Shared by the tests, with short times, and by the benchmark, with the defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from listener import Resets, Says, Stalls
from living import Living, now

from ops.backup import catalog
from ops.backup.objects import open_objects
from ops.health.finding import Id
from ops.recovery.ladder import Step


@dataclass(frozen=True)
class Fault:
    """One thing that breaks. `steps` are the repairs that must be made, in order; none: it must be told."""

    finding: Id
    inject: Callable[[Living], None]
    steps: tuple[Step, ...] = ()


def _application(living: Living) -> None:
    living.set_application("UNHEALTHY")


def _head(living: Living) -> None:
    living.break_pod(living.pods("head", "chat")[0])


def _head_again_and_again(living: Living) -> None:
    """The new head breaks, too; only another cluster helps."""
    living.broken_heads.add("shared")
    living.break_pod(living.pods("head", "shared")[0])


def _gcs(living: Living) -> None:
    living.shared.answers["/api/gcs_healthz"] = Says(503, "GCS")


def _dashboard(living: Living) -> None:
    living.chat.otherwise = Stalls()


def _autoscaler(living: Living) -> None:
    pod = living.pods("head", "shared")[0]
    dead = {"name": "autoscaler", "ready": False, "restartCount": 3, "image": "x", "imageID": ""}
    state = {"state": {"terminated": {"exitCode": 1}}, "lastState": {}}
    living.change_pod(pod, {"containerStatuses": [*pod["status"]["containerStatuses"], dead | state]})


def _serve(living: Living) -> None:
    living.serve.otherwise = Resets()


def _worker(living: Living) -> None:
    living.break_pod(living.pods("worker", "chat")[0])


def _gateway_pod(living: Living) -> None:
    living.break_pod(living.pods("gateway")[0])


def _cluster_gone(living: Living) -> None:
    living.kube.ask("DELETE", living.namespace.path("RayCluster", "shared"))
    assert "shared" not in living.namespace.names("RayCluster")


def _service_gone(living: Living) -> None:
    living.kube.ask("DELETE", living.namespace.path("RayService", "chat"))
    assert living.namespace.names("RayService") == []


def _operator(living: Living) -> None:
    living.operator_works = False
    living.set_deployment("kuberay-operator", 0)


def _gateway(living: Living) -> None:
    living.gateway.otherwise = Says(503, "no backend")


def _tracking(living: Living) -> None:
    living.tracking.otherwise = Says(500)


def _run_stuck(living: Living) -> None:
    spec = {"entrypoint": "x"}
    living.namespace.add(
        "RayJob", "train-stuck", spec, status={"jobDeploymentStatus": "Waiting", "startTime": now(hours=2)}
    )


def _submitter(living: Living) -> None:
    living.namespace.add("RayJob", "train-lost", {"entrypoint": "x"}, status={"jobDeploymentStatus": "Running"})
    living.add_failed_submitter("train-lost")


def _node(condition: str, status: str, reason: str) -> Callable[[Living], None]:
    return lambda living: living.add_node(condition, status, reason)


def _spot(living: Living) -> None:
    living.add_node(taint="aws-node-termination-handler/spot-itn")


def _backup_damaged(living: Living) -> None:
    objects = open_objects(living.settings().store)
    objects.put("manifests/backup-29991231-235959-ffff.json", b'{"format": 1}\n{}\n')
    assert catalog.backup_ids(objects)[-1] == "backup-29991231-235959-ffff"


def _backups_gone(living: Living) -> None:
    objects = open_objects(living.settings().store)
    for backup_id in catalog.backup_ids(objects):
        objects.delete(f"manifests/{backup_id}.json")
    assert catalog.backup_ids(objects) == []


FAULTS: dict[str, Fault] = {
    "Serve application unhealthy": Fault(Id.APPLICATION_UNHEALTHY, _application, (Step.RESTART_APPLICATION,)),
    "head keeps ending": Fault(Id.HEAD_DOWN, _head, (Step.DELETE_POD,)),
    "every new head keeps ending": Fault(Id.HEAD_DOWN, _head_again_and_again, (Step.DELETE_POD, Step.RECREATE)),
    "GCS down": Fault(Id.GCS_DOWN, _gcs, (Step.DELETE_POD,)),
    "dashboard hangs": Fault(Id.DASHBOARD_DOWN, _dashboard, (Step.DELETE_POD,)),
    "autoscaler down": Fault(Id.AUTOSCALER_DOWN, _autoscaler, (Step.DELETE_POD,)),
    "Serve's proxy resets connections": Fault(Id.SERVE_DOWN, _serve, (Step.DELETE_POD,)),
    "worker keeps ending": Fault(Id.WORKER_DOWN, _worker, (Step.DELETE_POD,)),
    "gateway pod keeps ending": Fault(Id.GATEWAY_POD_DOWN, _gateway_pod, (Step.DELETE_POD,)),
    "RayCluster deleted": Fault(Id.CLUSTER_MISSING, _cluster_gone, (Step.RECREATE,)),
    "RayService deleted": Fault(Id.SERVICE_MISSING, _service_gone, (Step.RECREATE,)),
    "operator down": Fault(Id.OPERATOR_DOWN, _operator),
    "gateway has no backend": Fault(Id.GATEWAY_DOWN, _gateway),
    "MLflow answers 500": Fault(Id.TRACKING_DOWN, _tracking),
    "run waits for two hours": Fault(Id.RUN_STUCK, _run_stuck),
    "submitter fails": Fault(Id.SUBMITTER_FAILING, _submitter),
    "spot interruption": Fault(Id.SPOT_INTERRUPTED, _spot),
    "node stops reporting": Fault(Id.NODE_NOT_READY, _node("Ready", "Unknown", "NodeStatusUnknown")),
    "node short of memory": Fault(Id.NODE_PRESSURE, _node("MemoryPressure", "True", "KubeletHasInsufficientMemory")),
    "node's disk full": Fault(Id.DISK_FULL, _node("DiskPressure", "True", "KubeletHasDiskPressure")),
    "GPU Xid 79": Fault(Id.GPU_FAULT, _node("AcceleratedHardwareReady", "False", "NvidiaXID79Error")),
    "backups gone": Fault(Id.BACKUP_STALE, _backups_gone),
    "newest backup damaged": Fault(Id.BACKUP_DAMAGED, _backup_damaged),
}
"""Certificates and S3 as a whole are broken by settings and a proxy: tests/ops/test_health.py."""
