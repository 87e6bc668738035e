"""Serving over a week: requests in steps of a second, Ray Serve's replicas, and the worker group that they run on.

Ray Serve 2.60 (serve/autoscaling_policy.py, which a test compares with): `ceil(ongoing / target)` replicas, averaged
over `look_back_s`, once more is wanted for `upscale_delay_s` or less for `downscale_delay_s`. A replica is an actor
that fills a worker; it answers once its model is loaded, and one that goes keeps its worker while it drains.

Requests are counted, not followed: of those that are worked on, each ends within a second with probability
`1 - exp(-1 / answer_s)`. What neither a replica nor the queue has room for is lost, as Serve answers 503.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.bench.autoscaling.group import Group, Pool, Run, Scaling, Usage
from tests.bench.autoscaling.workload import Job


@dataclass(frozen=True)
class Serve:
    """Settings of the deployment, as in jobs/serving/settings.py."""

    min_replicas: int
    max_replicas: int
    target: float
    upscale_delay_s: float
    downscale_delay_s: float
    look_back_s: float
    max_ongoing: int
    max_queued: int
    """Requests that may wait for a replica; -1: any number, of which those are lost that wait for over a minute."""


@dataclass(frozen=True)
class Model:
    """What is served: mean time of an answer, and times to load a replica and to let it finish, seconds."""

    answer_s: float = 10.0
    load_s: float = 60.0
    drain_s: float = 60.0


PATIENCE_S = 60.0


class Replicas:
    """How many replicas Serve wants, second by second."""

    def __init__(self, serve: Serve, wanted: int) -> None:
        self.wanted = wanted
        self._serve = serve
        self._recent: deque[float] = deque(maxlen=max(1, round(serve.look_back_s)))
        self._sum = 0.0
        self._sign, self._since_s = 0, 0.0

    def decide(self, now_s: float, ongoing: float) -> int:
        """`ongoing`: requests under way or waiting."""
        if len(self._recent) == self._recent.maxlen:
            self._sum -= self._recent[0]
        self._recent.append(ongoing)
        self._sum += ongoing
        serve = self._serve
        desired = math.ceil(self._sum / len(self._recent) / serve.target)
        desired = min(max(desired, serve.min_replicas), serve.max_replicas)
        sign = (desired > self.wanted) - (desired < self.wanted)
        if sign != self._sign:
            self._sign, self._since_s = sign, now_s
        delay_s = serve.upscale_delay_s if sign > 0 else serve.downscale_delay_s
        if sign and now_s - self._since_s >= delay_s:
            self.wanted, self._sign = desired, 0
        return self.wanted


@dataclass
class Served:
    """What a week of serving took."""

    usage: Usage
    requests: int
    lost: int
    queued_share: float
    """Share of requests that found every replica full, and waited."""


def serve_week(
    arrivals: NDArray[np.int64], serve: Serve, model: Model, scaling: Scaling, pool: Pool, rng: np.random.Generator
) -> Served:
    """Serve `arrivals`, requests in each second."""
    group = Group(scaling, pool, rng)
    replicas = Replicas(serve, serve.min_replicas)
    fleet = group.submit(Job("replica", "inference", 0.0, 1, math.inf) for _ in range(serve.min_replicas))
    group.advance(0.0)
    for run in fleet:
        run.started_s = -model.load_s if run.nodes else 0.0  # the week begins with what was there on Sunday
    leaving: deque[tuple[float, Run]] = deque()
    ending = 1 - math.exp(-1 / model.answer_s)
    ongoing = lost = waited = ready = 0
    settled = False
    for second, count in enumerate(arrivals.tolist()):
        group.advance(second)
        while leaving and leaving[0][0] <= second:
            group.release(leaving.popleft()[1])
        if not settled or pool.interruptions_per_hour:
            ready = sum(1 for run in fleet if run.nodes and second - run.started_s >= model.load_s)
            settled = ready == len(fleet)
        room = ready * serve.max_ongoing
        ongoing += count
        if ongoing > room:
            queue = serve.max_queued if serve.max_queued >= 0 else int(room / model.answer_s * PATIENCE_S)
            over = max(0, ongoing - room - queue)
            lost += over
            ongoing -= over
            waited += min(count, ongoing - room)
        if busy := min(ongoing, room):
            ongoing -= int(rng.binomial(busy, ending))
        wanted = replicas.decide(second, ongoing)
        if wanted == len(fleet):
            continue
        settled = False
        if wanted > len(fleet):
            fleet += group.submit(Job("replica", "inference", second, 1, math.inf) for _ in range(wanted - len(fleet)))
        while wanted < len(fleet):
            # Newest first: it may not even run yet. One that runs drains.
            run = fleet.pop()
            if run.nodes:
                leaving.append((second + model.drain_s, run))
            else:
                group.release(run)
        group.advance(second)
    return Served(group.finish(len(arrivals)), int(arrivals.sum()), lost, waited / max(1, int(arrivals.sum())))
