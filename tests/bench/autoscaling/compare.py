"""A week under each policy: node-hours, cost, waits, lost requests and wasted work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tests.bench.autoscaling.group import Group, Pool, Recovery, Scaling, Usage
from tests.bench.autoscaling.policies import Policy, pool, static, usd_per_hour
from tests.bench.autoscaling.serving import Model, Serve, Served, serve_week
from tests.bench.autoscaling.workload import WEEK_S, jobs, requests

WAIT_BAR_S = 300.0
JOB_GROUPS = ("training", "preprocessing")


@dataclass(frozen=True)
class Week:
    """One policy's week."""

    node_hours: dict[str, float]
    usd: float
    waits_s: dict[str, list[float]]
    lost: int
    requests: int
    queued_share: float
    wasted_hours: float
    interruptions: int

    def wait_s(self, percent: float, *groups: str) -> float:
        """Percentile of the waits of these groups' jobs, seconds; of all jobs without a name."""
        return percentile([wait for group in groups or JOB_GROUPS for wait in self.waits_s[group]], percent)


def percentile(values: Iterable[float], percent: float) -> float:
    return float(np.percentile(list(values), percent))


def job_week(
    seed: int, group: str, scaling: Scaling, nodes: Pool, recovery: Recovery | None = None, scale: float = 1.0
) -> Usage:
    """A week of a group's jobs. They are paid for until Sunday 24:00."""
    simulation = Group(scaling, nodes, np.random.default_rng([seed, 3]), recovery)
    simulation.submit(job for job in jobs(seed, scale) if job.group == group)
    return simulation.finish(WEEK_S)


@cache
def serving_week(seed: int, serve: Serve, scaling: Scaling, nodes: Pool) -> Served:
    """A week of requests."""
    return serve_week(requests(seed), serve, Model(), scaling, nodes, np.random.default_rng([seed, 4]))


def week(policy: Policy, seed: int) -> Week:
    """All three groups under a policy."""
    usages = {name: job_week(seed, name, policy.groups[name], pool(name, name in policy.spot)) for name in JOB_GROUPS}
    served = serving_week(seed, policy.serve, policy.groups["inference"], pool("inference"))
    node_hours = {name: usage.node_hours for name, usage in usages.items()} | {"inference": served.usage.node_hours}
    return Week(
        node_hours=node_hours,
        usd=sum(hours * usd_per_hour(name, name in policy.spot) for name, hours in node_hours.items()),
        waits_s={name: usage.waits_s for name, usage in usages.items()},
        lost=served.lost,
        requests=served.requests,
        queued_share=served.queued_share,
        wasted_hours=sum(usage.wasted_s for usage in usages.values()) / 3600,
        interruptions=sum(usage.interruptions for usage in usages.values()),
    )


def fair_static(seed: int, serve: Serve) -> Policy:
    """The smallest fixed number of on-demand nodes that keeps the bars of each group in this very week.

    Sized in hindsight, which nobody who buys machines has: real static provisioning needs more.
    """

    def waits_little(group: str, count: int) -> bool:
        return percentile(job_week(seed, group, Scaling(count, count, 0.0), pool(group)).waits_s, 95) <= WAIT_BAR_S

    def loses_nothing(count: int) -> bool:
        policy = static(dict.fromkeys((*JOB_GROUPS, "inference"), count), serve)
        return serving_week(seed, policy.serve, policy.groups["inference"], pool("inference")).lost == 0

    nodes = {group: smallest(lambda count, group=group: waits_little(group, count)) for group in JOB_GROUPS}  # type: ignore[misc]
    return static(nodes | {"inference": smallest(loses_nothing, start=4)}, serve)


def smallest(enough: Callable[[int], bool], start: int = 1) -> int:
    """The smallest count from `start` on that is enough."""
    count = start
    while not enough(count):
        count += 1
    return count
