"""A seeded working week of a team: training, tuning and preprocessing jobs, and the requests of a chat service.

The shape is that of published traces, of which no row is used; the README beside this file says what is from where.
The size (jobs a day, requests a second) is that of one team and is scaled by `scale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WEEK_S = 7 * DAY_S

Rng = np.random.Generator

# Submissions by hour of the day, relative: little at night, dips at lunch and at dinner, as at Helios.
JOB_HOURS = np.array([2, 1, 1, 1, 1, 1, 2, 4, 10, 18, 20, 18, 9, 17, 20, 20, 18, 14, 8, 10, 11, 9, 6, 4], float)
# Requests by hour: low before dawn, a plateau in office hours, a lower one in the evening (Azure's LLM traces).
REQUEST_HOURS = np.array(
    [30, 20, 13, 10, 9, 10, 15, 28, 55, 80, 90, 92, 85, 95, 100, 98, 92, 85, 80, 82, 85, 78, 65, 45]
)
WEEKEND_JOBS = 0.2
WEEKEND_REQUESTS = 0.6


@dataclass(frozen=True)
class Job:
    """Work that holds whole workers of one group from its start to its end, all at once (a gang) or none."""

    kind: str
    group: str
    arrival_s: float
    workers: int
    duration_s: float


@dataclass(frozen=True)
class Kind:
    """What jobs of a kind are like: a lognormal duration, as many like jobs at once as `parts`, of `workers` each."""

    group: str
    per_day: float
    median_s: float
    sigma: float
    shortest_s: float
    longest_s: float
    workers: dict[int, float]
    parts: dict[int, float]


KINDS = {
    # Most jobs take one GPU, a minority gangs (Philly, Helios); durations spread over orders of magnitude.
    "train": Kind("training", 48, 40 * 60, 1.2, 5 * 60, 12 * HOUR_S, {1: 0.70, 2: 0.18, 4: 0.12}, {1: 1.0}),
    # A search runs its trials side by side, each on a GPU of its own.
    "tune": Kind("training", 5, 50 * 60, 0.6, 10 * 60, 6 * HOUR_S, {1: 1.0}, {4: 1.0}),
    # Ray Data's tasks are alike and wait for nobody: a corpus takes what workers it gets.
    "preprocess": Kind("preprocessing", 18, 12 * 60, 1.0, 60, 4 * HOUR_S, {1: 1.0}, {1: 0.4, 2: 0.3, 4: 0.2, 8: 0.1}),
}


def jobs(seed: int, scale: float = 1.0) -> list[Job]:
    """The week's jobs in order of arrival, Monday 00:00 first; `scale` times as many as one team has."""
    rng = np.random.default_rng([seed, 1])
    made = [job for name, kind in KINDS.items() for job in _of_kind(rng, name, kind, scale)]
    return sorted(made, key=lambda job: job.arrival_s)


def _of_kind(rng: Rng, name: str, kind: Kind, scale: float) -> Iterator[Job]:
    for day in range(7):
        share = WEEKEND_JOBS if day >= 5 else 1.0
        arrivals = rng.choice(24, size=rng.poisson(kind.per_day * share * scale), p=JOB_HOURS / JOB_HOURS.sum())
        for arrival_s in (arrivals + rng.random(len(arrivals))) * HOUR_S + day * DAY_S:
            workers = int(rng.choice(list(kind.workers), p=list(kind.workers.values())))
            duration_s = np.clip(rng.lognormal(np.log(kind.median_s), kind.sigma), kind.shortest_s, kind.longest_s)
            for _ in range(int(rng.choice(list(kind.parts), p=list(kind.parts.values())))):
                yield Job(name, kind.group, float(arrival_s), workers, float(duration_s))


def requests(seed: int, peak_per_s: float = 5.0) -> NDArray[np.int64]:
    """Requests that arrive in each second of the week, shape (604800,).

    A Poisson stream whose rate follows the hours, times noise from minute to minute (Gamma, as BurstGPT found arrivals
    to be burstier than Poisson), times a crowd about once a day: 2.5 times the load within two minutes, for five.
    """
    rng = np.random.default_rng([seed, 2])
    seconds = np.arange(int(WEEK_S))
    day = np.where(seconds // DAY_S >= 5, WEEKEND_REQUESTS, 1.0)
    hours = np.interp(seconds % DAY_S, (np.arange(25)) * HOUR_S, np.append(REQUEST_HOURS, REQUEST_HOURS[0]))
    noise = np.repeat(rng.gamma(25.0, 1 / 25.0, size=int(WEEK_S) // 60), 60)
    crowd = np.ones(int(WEEK_S))
    for start in rng.integers(0, int(WEEK_S) - 600, size=7):
        crowd[start : start + 420] = np.interp(np.arange(420), [0, 120, 300, 420], [1.0, 2.5, 2.5, 1.0])
    return rng.poisson(peak_per_s * hours / REQUEST_HOURS.max() * day * noise * crowd)
