"""A slice of the week through the autoscaler that Ray 2.60 ships, with fake nodes and a clock of our own.

What decides is Ray's own code: `Autoscaler`, `Reconciler`, `InstanceManager` and `ResourceDemandScheduler` of
ray.autoscaler.v2, updated every five seconds as its monitor does. Around it stand a cloud that makes nodes after their
boot time (Ray's interface `ICloudInstanceProvider`), and a stand-in for GCS that reports nodes, idle times and pending
placement groups in GCS's own protocol buffers. Time is the stand-in's: hours pass in a minute, and a busy machine
changes no result. Ray's own fake nodes are raylets with agents, of which one takes half a minute to start on two cores.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
from ray.autoscaler.v2.autoscaler import Autoscaler
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, IConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import CloudInstance, ICloudInstanceProvider
from ray.autoscaler.v2.instance_manager.subscribers import ray_stopper
from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply, NodeStatus
from ray.core.generated.instance_manager_pb2 import NodeKind

from tests.bench.autoscaling.group import Pool, Scaling
from tests.bench.autoscaling.workload import HOUR_S, Job

HEAD, WORKER = "head", "worker"
COMMANDS = [
    f"{name}_commands"
    for name in ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
]
"""Lists that a configuration of the autoscaler must have."""


@dataclass(eq=False)
class FakeNode:
    """`ready_s`: when it joins; `idle_s`: since when it has nothing to do, None while it has."""

    number: int
    made_s: float
    ready_s: float
    request: str
    idle_s: float | None = None
    draining: bool = False

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def ray_id(self) -> bytes:
        return self.number.to_bytes(28, "big")


@dataclass(eq=False)
class Waiting:
    """A job as a placement group; `ends_s` once it runs on `nodes`."""

    job: Job
    nodes: list[FakeNode] = field(default_factory=list)
    ends_s: float = math.inf


class FakeCluster(ICloudInstanceProvider):
    """Nodes and jobs at a moment: to Ray's autoscaler the cloud and GCS, in small and plain code of its own."""

    def __init__(self, jobs: list[Job], pool: Pool, rng: np.random.Generator) -> None:
        self.now_s = 0.0
        self.node_s = 0.0
        self.waits_s: list[float] = []
        self._pool, self._rng = pool, rng
        self._to_come = [Waiting(job) for job in jobs]
        self._waiting: list[Waiting] = []
        self._running: list[Waiting] = []
        self._nodes: dict[str, FakeNode] = {}
        self._made = 0

    # The cloud

    def get_non_terminated(self) -> dict[str, CloudInstance]:
        nodes = {n.name: CloudInstance(n.name, WORKER, NodeKind.WORKER, True, n.request) for n in self._nodes.values()}
        return {HEAD: CloudInstance(HEAD, HEAD, NodeKind.HEAD, True, ""), **nodes}

    def launch(self, shape: dict[str, int], request_id: str) -> None:
        for _ in range(shape[WORKER]):
            self._made += 1
            boot_s = self._pool.boot_s * self._rng.lognormal(0.0, self._pool.boot_sigma)
            node = FakeNode(self._made, self.now_s, self.now_s + boot_s, request_id)
            self._nodes[node.name] = node

    def terminate(self, ids: list[str], request_id: str) -> None:
        for name in ids:
            self.node_s += self.now_s - self._nodes.pop(name).made_s

    def poll_errors(self) -> list[Any]:
        return []

    # GCS

    def drain_node(self, node_id: str, **_: object) -> tuple[bool, str]:
        """As a raylet does: an idle node agrees and is gone, a busy one declines."""
        node = next(n for n in self._nodes.values() if n.ray_id.hex() == node_id)
        node.draining = node.idle_s is not None
        return node.draining, "" if node.draining else "busy"

    def get_cluster_resource_state(self) -> bytes:
        reply = GetClusterResourceStateReply()
        state = reply.cluster_resource_state
        state.node_states.add(
            node_id=bytes(28),
            instance_id=HEAD,
            ray_node_type_name=HEAD,
            total_resources={"node:__internal_head__": 1.0},
            status=NodeStatus.RUNNING,
        )
        for node in self._nodes.values():
            if node.ready_s <= self.now_s:
                idle = node.idle_s is not None
                state.node_states.add(
                    node_id=node.ray_id,
                    instance_id=node.name,
                    ray_node_type_name=WORKER,
                    available_resources={WORKER: float(idle and not node.draining)},
                    total_resources={WORKER: 1.0},
                    status=NodeStatus.DEAD if node.draining else NodeStatus.IDLE if idle else NodeStatus.RUNNING,
                    idle_duration_ms=round((self.now_s - node.idle_s) * 1000) if node.idle_s is not None else 0,
                )
        for waiting in self._waiting:
            gang = state.pending_gang_resource_requests.add(details=waiting.job.kind)
            for _ in range(waiting.job.workers):
                gang.requests.add(resources_bundle={WORKER: 1.0})
        return reply.SerializeToString()

    # Time

    def advance(self, until_s: float) -> None:
        """What happens by itself until then: arrivals, joins, starts and ends, each at its own moment."""
        while (moment_s := self._next_s()) <= until_s:
            self.now_s = moment_s
            while self._to_come and self._to_come[0].job.arrival_s <= moment_s:
                self._waiting.append(self._to_come.pop(0))
            for node in self._nodes.values():
                if node.ready_s == moment_s:
                    node.idle_s = moment_s
            for ended in [r for r in self._running if r.ends_s <= moment_s]:
                self._running.remove(ended)
                for node in ended.nodes:
                    node.idle_s = moment_s
            self._start()
        self.now_s = until_s

    def _next_s(self) -> float:
        moments = [r.ends_s for r in self._running]
        moments += [n.ready_s for n in self._nodes.values() if n.ready_s > self.now_s]
        moments += [w.job.arrival_s for w in self._to_come[:1]]
        return min(moments, default=math.inf)

    def _start(self) -> None:
        for waiting in list(self._waiting):
            idle = [n for n in self._nodes.values() if n.idle_s is not None and not n.draining]
            if len(idle) >= waiting.job.workers:
                self._waiting.remove(waiting)
                self._running.append(waiting)
                waiting.nodes = sorted(idle, key=lambda n: n.idle_s or 0.0)[: waiting.job.workers]
                waiting.ends_s = self.now_s + waiting.job.duration_s
                self.waits_s.append(self.now_s - waiting.job.arrival_s)
                for node in waiting.nodes:
                    node.idle_s = None


class _Fixed(IConfigReader):  # type: ignore[misc]
    def __init__(self, scaling: Scaling) -> None:
        types = {
            HEAD: {"resources": {}, "node_config": {}, "min_workers": 0, "max_workers": 0},
            WORKER: {
                "resources": {WORKER: 1},
                "node_config": {},
                "min_workers": scaling.minimum,
                "max_workers": scaling.maximum,
                "idle_timeout_s": scaling.idle_s,
            },
        }
        self._config = AutoscalingConfig(
            {
                "cluster_name": "replay",
                "provider": {"type": "external", "module": "unused", "disable_node_updaters": True},
                "auth": {},
                "file_mounts": {},
                "cluster_synced_files": [],
                "file_mounts_sync_continuously": False,
                "available_node_types": types,
                "head_node_type": HEAD,
                "max_workers": scaling.maximum,
                "upscaling_speed": scaling.speed,
                "idle_timeout_minutes": scaling.idle_s / 60,
                **{key: [] for key in COMMANDS},
            },
            skip_content_hash=True,
        )

    def get_cached_autoscaling_config(self) -> AutoscalingConfig:
        return self._config

    def refresh_cached_autoscaling_config(self) -> None:
        pass


class _Replayed(Autoscaler):  # type: ignore[misc]
    """Ray's autoscaler, given its cloud instead of making one."""

    def __init__(self, scaling: Scaling, cluster: FakeCluster) -> None:
        self._cluster = cluster
        # Ray asks for a drain on a thread of its own; here it must fall within the update.
        with mock.patch.object(ray_stopper, "ThreadPoolExecutor", lambda **_: _AtOnce()):
            super().__init__("replay", _Fixed(scaling), gcs_client=cluster)

    def _init_cloud_instance_provider(self, *_: object) -> None:
        self._cloud_instance_provider = self._cluster


class _AtOnce:
    def submit(self, act: Callable[..., object], *args: object) -> Future[object]:
        done: Future[object] = Future()
        done.set_result(act(*args))
        return done


@dataclass(frozen=True)
class Replayed:
    """What the slice took."""

    node_hours: float
    waits_s: list[float]


def replay(jobs: list[Job], scaling: Scaling, pool: Pool, until_s: float, rng: np.random.Generator) -> Replayed:
    """Jobs of one group, arrivals counted from the slice's start, through Ray's autoscaler until a time."""
    cluster = FakeCluster(jobs, pool, rng)
    autoscaler = _Replayed(scaling, cluster)
    for update in range(int(until_s // scaling.interval_s) + 1):
        cluster.advance(update * scaling.interval_s)
        # Ray logs an error of an update and goes on; here it must end the replay.
        if autoscaler.update_autoscaling_state() is None:
            raise RuntimeError("Ray's autoscaler failed in an update; its log says why")
    cluster.advance(until_s)
    cluster.terminate([name for name in cluster.get_non_terminated() if name != HEAD], "end")
    return Replayed(cluster.node_s / HOUR_S, cluster.waits_s)


logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
