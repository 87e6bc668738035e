"""What was seen of the platform at one moment. Nothing here judges; `ops.health.checks` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Probe:
    """An answer to one question over the network; `problem` is empty if all is well."""

    address: str
    problem: str = ""
    status: int | None = None
    """HTTP status, where the problem is one."""


@dataclass(frozen=True)
class Pod:
    """One pod of the platform."""

    name: str
    uid: str
    role: str
    """head, worker or gateway; empty for others."""
    cluster: str
    """RayCluster that it belongs to; empty for others."""
    phase: str
    ready: bool
    since: datetime
    """When it was made."""
    was_ready: bool = False
    """Whether it was ready once, in its present run."""
    looping: bool = False
    """Whether one of its containers keeps ending."""
    waiting: frozenset[str] = frozenset()
    """Containers that do not run."""
    obstacle: str = ""
    """What keeps it from running, as a sentence."""
    disk: bool = False
    """Whether it was evicted because a disk was full."""
    leaving: bool = False
    """Whether it is being deleted."""
    node: str = ""
    """Where it is; empty before it is anywhere."""


@dataclass(frozen=True)
class RayCluster:
    """One RayCluster."""

    name: str
    uid: str
    owner: str
    """`RayService/chat` or `RayJob/train-…` that made it; empty for a person or a chart."""
    up: bool
    since: datetime
    """When it last became, or ceased to be, up; when it was made, if it never was."""
    suspended: bool = False
    leaving: bool = False
    fault_tolerant: bool = False
    """Whether the state of its head outlives the head's pod."""
    autoscaling: bool = False
    wanted_workers: int = 0
    ready_workers: int = 0


@dataclass(frozen=True)
class Application:
    """A Serve application: Ray's word for how it is, and what Ray says about it."""

    name: str
    status: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True)
class RayService:
    """One RayService."""

    name: str
    up: bool
    since: datetime
    cluster: str
    """RayCluster that serves now; empty before there is one."""
    suspended: bool = False
    leaving: bool = False
    applications: tuple[Application, ...] = ()


@dataclass(frozen=True)
class RayJob:
    """One RayJob that has not ended."""

    name: str
    status: str
    """KubeRay's jobDeploymentStatus; empty for one that the operator has not looked at."""
    since: datetime
    cluster: str
    message: str = ""
    submitter_failures: int = 0


@dataclass(frozen=True)
class Node:
    """One node of Kubernetes."""

    name: str
    ready: bool
    problem: str = ""
    """Why it is not ready."""
    pressure: tuple[str, ...] = ()
    """Memory, Disk or PID."""
    interrupted: str = ""
    """What announced that it will be taken away."""
    gpu_fault: str = ""
    """What was said about its GPUs."""


@dataclass(frozen=True)
class Dashboard:
    """What a cluster's Ray dashboard says."""

    probe: Probe
    gcs: str = ""
    """What is wrong with the GCS; empty if nothing is."""
    applications: tuple[Application, ...] = ()
    running_jobs: int = 0


@dataclass(frozen=True)
class Backup:
    """The newest Completed backup; `damage` says that a newer manifest is not what was written."""

    id: str = ""
    finished: datetime | None = None
    damage: str = ""


@dataclass(frozen=True)
class Observed:
    """Everything. `unseen` says which sources could not be read and why: their fields are then empty, not healthy."""

    at: datetime
    unseen: Mapping[str, str] = field(default_factory=dict)
    operator: Probe | None = None
    pods: tuple[Pod, ...] = ()
    clusters: tuple[RayCluster, ...] = ()
    services: tuple[RayService, ...] = ()
    jobs: tuple[RayJob, ...] = ()
    nodes: tuple[Node, ...] = ()
    dashboards: Mapping[str, Dashboard] = field(default_factory=dict)
    """By RayCluster; of those with a head that should answer."""
    serving: Mapping[str, Probe] = field(default_factory=dict)
    """By RayService; of those that are up."""
    gateway: Probe | None = None
    tracking: Probe | None = None
    stores: tuple[Probe, ...] = ()
    certificates: Mapping[str, datetime] = field(default_factory=dict)
    """`host:port` to the end of its certificate."""
    backup: Backup | None = None
    drill: datetime | None = None
    """When a drill last succeeded; none: never."""
    unfinished: frozenset[str] = frozenset()
    """Targets (`RayCluster/name`) whose recreation was begun and not finished."""

    def cluster(self, name: str) -> RayCluster | None:
        """The RayCluster of that name."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)

    def pods_of(self, cluster: str, role: str) -> tuple[Pod, ...]:
        """Pods of one role, without those that are being deleted."""
        return tuple(pod for pod in self.pods if (pod.cluster, pod.role) == (cluster, role) and not pod.leaving)
