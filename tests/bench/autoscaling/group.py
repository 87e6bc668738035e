"""A discrete-event model of one worker group: Ray's autoscaler, the node group under it, and spot interruptions.

A worker fills a node, as the chart's do. What is modelled of Ray 2.60's autoscaler v2 (autoscaler/v2/scheduler.py and
instance_manager/reconciler.py; `validate` compares with that code itself): every `interval_s` it packs the gangs that
wait onto workers that are idle or on their way, largest gang first, all or nothing; queues what is missing up to the
maximum; requests at most `ceil(speed * running)` and at most ten of those at a time; and drains workers idle for longer
than `idle_s`, longest first, never under the minimum nor such as a waiting gang counts on.

Time is in seconds. An event costs O(log n), whatever the number of nodes: autoscaler updates that could change
nothing are left out.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tests.bench.autoscaling.workload import HOUR_S, Job

LAUNCHES_AT_ONCE = 10
"""Ray's AUTOSCALER_MAX_CONCURRENT_LAUNCHES, which KubeRay's autoscaler keeps to as well."""


@dataclass(frozen=True)
class Scaling:
    """Ray's autoscaler for a worker group."""

    minimum: int
    maximum: int
    idle_s: float
    speed: float = 1.0
    """upscaling_speed: 1 for the mode Conservative, 1000 for Default and Aggressive."""
    interval_s: float = 5.0
    """AUTOSCALER_UPDATE_INTERVAL_S."""


@dataclass(frozen=True)
class Pool:
    """The node group that workers run on."""

    boot_s: float
    """Median time from the request for a node until a worker can start on it, image pulled."""
    boot_sigma: float = 0.25
    """Spread of that time, standard deviation of its logarithm."""
    pod_s: float = 20.0
    """Time from a worker's pod on a node that is up until Ray counts it in."""
    scan_s: float = 10.0
    """Period in which cluster-autoscaler looks for pods without a node."""
    unneeded_s: float = 600.0
    """How long a node without a worker is kept: cluster-autoscaler's scale-down-unneeded-time."""
    interruptions_per_hour: float = 0.0
    """Spot: expected interruptions per node and hour."""


STATES = ("boot", "idle", "busy", "drain", "warm")
"""Of a node; `warm`: it is up, and holds no worker."""

FAKE_NODES = {"pod_s": 0.0, "scan_s": 0.0, "unneeded_s": 0.0}
"""Pool settings where a worker and its node are one, as with Ray's fake nodes."""


@dataclass(frozen=True)
class Recovery:
    """What an interruption costs a job: work since its last checkpoint, and a new start."""

    checkpoint_s: float = 600.0
    restart_s: float = 60.0


@dataclass(eq=False)
class Node:
    """A node. It entered `state` at `since_s`; each second that it is paid for goes to one state of `Usage.node_s`."""

    number: int
    since_s: float
    state: str = "boot"
    run: Run | None = None


@dataclass(eq=False)
class Run:
    """A job that waits or runs, and what is left of it."""

    job: Job
    number: int
    left_s: float
    waiting_since_s: float
    started_s: float = 0.0
    restarts: int = 0
    nodes: list[Node] = field(default_factory=list)


@dataclass
class Usage:
    """What a simulation measured: node time by state, and the wait of every start, restarts included; seconds."""

    node_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATES, 0.0))
    waits_s: list[float] = field(default_factory=list)
    finished: int = 0
    interruptions: int = 0
    wasted_s: float = 0.0
    """Node time of work that was lost since the last checkpoint, and of starting again."""
    peak_nodes: int = 0
    events: int = 0

    @property
    def node_hours(self) -> float:
        """Time for which nodes were paid."""
        return sum(self.node_s.values()) / HOUR_S


class Group:
    """One worker group over time: `submit` and `release` work, `advance` the clock, `finish` to read the usage."""

    def __init__(
        self, scaling: Scaling, pool: Pool, rng: np.random.Generator, recovery: Recovery | None = None
    ) -> None:
        self.now_s = 0.0
        self.usage = Usage()
        self._scaling, self._pool, self._rng = scaling, pool, rng
        self._recovery = recovery or Recovery()
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []
        self._numbers = 0
        self._update_s = math.inf
        self._waiting: dict[int, deque[Run]] = {}
        self._alive: dict[int, Node] = {}
        self._idle: OrderedDict[int, Node] = OrderedDict()  # in the order in which they became idle
        self._warm: dict[int, Node] = {}  # likewise
        self._queued = self._starting = self._busy = 0
        for _ in range(scaling.minimum):
            self._starting += 1
            self._ready(self._new_node())

    def submit(self, jobs: Iterable[Job]) -> list[Run]:
        """Runs of jobs that come at their time; one of infinite duration ends by `release`."""
        runs = []
        for job in jobs:
            run = Run(job, self._number(), job.duration_s, job.arrival_s)
            self._at(job.arrival_s, partial(self._wait, run))
            runs.append(run)
        return runs

    def release(self, run: Run) -> None:
        """End a run now, or give up waiting for its start."""
        if run.nodes:
            self._end(run)
        else:
            self._waiting[run.job.workers].remove(run)
            self._update_from(self.now_s)

    def advance(self, until_s: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, _, act = heapq.heappop(self._events)
            self.usage.events += 1
            act()
        self.now_s = until_s

    def finish(self, until_s: float) -> Usage:
        """Let time pass, and count nodes that are still there up to then."""
        self.advance(until_s)
        for node in self._alive.values():
            self._enter(node, node.state)
        return self.usage

    # Time and nodes

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _at(self, time_s: float, act: Callable[[], None], last: bool = False) -> None:
        heapq.heappush(self._events, (time_s, last, self._number(), act))

    def _new_node(self) -> Node:
        node = Node(self._number(), self.now_s)
        self._alive[node.number] = node
        self.usage.peak_nodes = max(self.usage.peak_nodes, len(self._alive))
        if hazard := self._pool.interruptions_per_hour:
            self._at(self.now_s + self._rng.exponential(HOUR_S / hazard), partial(self._interrupt, node))
        return node

    def _enter(self, node: Node, state: str) -> None:
        self.usage.node_s[node.state] += self.now_s - node.since_s
        node.state, node.since_s = state, self.now_s

    def _remove(self, node: Node) -> None:
        self._enter(node, node.state)
        del self._alive[node.number]

    # Jobs

    def _wait(self, run: Run) -> None:
        self._waiting.setdefault(run.job.workers, deque()).append(run)
        self._start_jobs()
        self._update_from(self.now_s)

    def _start_jobs(self) -> None:
        """Oldest first, but a job that fits goes before one that does not, as Ray's placement groups do."""
        while self._idle and (fits := [q for size, q in self._waiting.items() if q and size <= len(self._idle)]):
            run = min(fits, key=lambda queue: queue[0].number).popleft()
            self.usage.waits_s.append(self.now_s - run.waiting_since_s)
            run.started_s = self.now_s
            for _ in range(run.job.workers):
                node = self._idle.popitem(last=False)[1]
                self._enter(node, "busy")
                node.run = run
                run.nodes.append(node)
            self._busy += run.job.workers
            if math.isfinite(run.left_s):
                self._at(self.now_s + run.left_s, partial(self._done, run, run.restarts))

    def _done(self, run: Run, restarts: int) -> None:
        if run.restarts == restarts:  # not interrupted meanwhile
            self.usage.finished += 1
            self._end(run)

    def _end(self, run: Run) -> None:
        self._busy -= len(run.nodes)
        for node in run.nodes:
            node.run = None
            self._rest(node)
        run.nodes = []
        self._start_jobs()
        self._update_from(self.now_s)

    def _rest(self, node: Node) -> None:
        self._enter(node, "idle")
        self._idle[node.number] = node

    def _interrupt(self, node: Node) -> None:
        """The cloud takes a node back. Ray Train does not heed the notice: the gang goes on from its checkpoint."""
        if node.number not in self._alive:
            return
        self.usage.interruptions += 1
        self._starting -= node.state == "boot"
        self._idle.pop(node.number, None)
        self._warm.pop(node.number, None)
        self._remove(node)
        if run := node.run:
            self._busy -= 1
            run.nodes.remove(node)
            self._go_back(run)
            self._end(run)
        self._update_from(self.now_s)

    def _go_back(self, run: Run) -> None:
        """To the last checkpoint, and to the head of the queue."""
        if math.isfinite(run.left_s):
            spent_s = self.now_s - run.started_s
            restart_s = self._recovery.restart_s if run.restarts else 0.0
            checkpoints = max(0.0, spent_s - restart_s) // self._recovery.checkpoint_s
            left_s = run.left_s - restart_s - checkpoints * self._recovery.checkpoint_s + self._recovery.restart_s
            self.usage.wasted_s += (left_s + spent_s - run.left_s) * run.job.workers
            run.left_s = left_s
        run.restarts += 1
        run.waiting_since_s = self.now_s
        self._waiting[run.job.workers].appendleft(run)

    # Ray's autoscaler

    def _update_from(self, time_s: float) -> None:
        """See to it that an update of the autoscaler is done at or after this time."""
        time_s = math.ceil(time_s / self._scaling.interval_s) * self._scaling.interval_s
        if time_s < self._update_s:
            self._update_s = time_s
            self._at(time_s, partial(self._update, time_s), last=True)

    def _update(self, time_s: float) -> None:
        if time_s != self._update_s:
            return  # another was done earlier and settled what this one was for
        self._update_s = math.inf
        needed = self._plan()
        self._launch()
        self._drain_idle(needed)

    def _plan(self) -> int:
        """Queue what is missing; return how many idle workers a waiting gang counts on."""
        scaling = self._scaling
        workers = len(self._idle) + self._busy + self._starting + self._queued
        self._queued += max(0, scaling.minimum - workers)
        workers = max(workers, scaling.minimum)
        free = idle = len(self._idle) + self._starting + self._queued
        for size in sorted(self._waiting, reverse=True):
            count = len(self._waiting[size])
            # As many gangs as fit onto what is free and what may still be added.
            room = scaling.maximum - workers
            fit = min(count, (free + room) // size)
            missing = max(0, fit * size - free)
            self._queued += missing
            workers += missing
            free = max(0, free - fit * size)
        return min(len(self._idle), idle - free) if idle else 0

    def _launch(self) -> None:
        running = len(self._idle) + self._busy
        most = max(1, math.ceil(self._scaling.speed * max(running, 1)))
        for _ in range(min(self._queued, most, LAUNCHES_AT_ONCE)):
            self._queued -= 1
            self._starting += 1
            if self._warm:
                node = self._warm.popitem()[1]
                self._enter(node, "boot")
                self._at(self.now_s + self._pool.pod_s, partial(self._ready, node))
            else:
                self._at(self.now_s + self._rng.uniform(0, self._pool.scan_s), self._boot)
        if self._queued:
            self._update_from(self.now_s + self._scaling.interval_s)

    def _boot(self) -> None:
        pool = self._pool
        node = self._new_node()
        boot_s = pool.boot_s * self._rng.lognormal(0.0, pool.boot_sigma)
        self._at(self.now_s + boot_s + pool.pod_s, partial(self._ready, node))

    def _ready(self, node: Node) -> None:
        if node.number in self._alive:
            self._starting -= 1
            self._rest(node)
            self._start_jobs()
            self._update_from(self.now_s)

    def _drain_idle(self, needed: int) -> None:
        scaling = self._scaling
        spare = len(self._idle) + self._busy + self._starting + self._queued - scaling.minimum
        spare = min(spare, len(self._idle) - needed)
        for _ in range(spare):
            node = next(iter(self._idle.values()))
            if self.now_s - node.since_s <= scaling.idle_s:
                wake_s = node.since_s + scaling.idle_s
                # The update in which the time is over, not the one in which it is just reached.
                self._update_from((math.floor(wake_s / scaling.interval_s) + 1) * scaling.interval_s)
                break
            del self._idle[node.number]
            self._enter(node, "drain")
            self._at(self.now_s + scaling.interval_s, partial(self._drained, node))

    def _drained(self, node: Node) -> None:
        if node.number not in self._alive:
            return
        if self._pool.unneeded_s:
            self._enter(node, "warm")
            self._warm[node.number] = node
            self._at(self.now_s + self._pool.unneeded_s, partial(self._expire, node, self.now_s))
        else:
            self._remove(node)

    def _expire(self, node: Node, since_s: float) -> None:
        if node.state == "warm" and node.since_s == since_s and self._warm.pop(node.number, None):
            self._remove(node)
