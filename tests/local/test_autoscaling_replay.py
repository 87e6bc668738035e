"""The model beside the autoscaler that Ray ships. `python -m tests.bench.autoscaling validate` does longer slices."""

from dataclasses import replace

import numpy as np
import pytest

from tests.bench.autoscaling.group import FAKE_NODES, Group, Pool, Scaling
from tests.bench.autoscaling.policies import pool
from tests.bench.autoscaling.replay import replay
from tests.bench.autoscaling.tables import slice_of
from tests.bench.autoscaling.workload import HOUR_S, Job, jobs


def test_a_gang_over_the_maximum_keeps_no_idle_worker():
    """A case in which Ray does what one would not expect, reckoned by hand in tests/unit/test_autoscaling_model.py."""
    gangs = [Job("train", "training", at_s, workers, 100.0) for at_s, workers in ((2.0, 4), (150.0, 2), (170.0, 3))]
    nodes = Pool(boot_s=60, boot_sigma=0, **FAKE_NODES)
    real = replay(gangs, Scaling(0, 4, 30, speed=1000), nodes, 600.0, np.random.default_rng(0))
    assert real.waits_s == [63, 15, 155]


@pytest.mark.long
@pytest.mark.parametrize(
    ("group", "scaling"),
    [("training", Scaling(1, 8, 300, speed=1)), ("preprocessing", Scaling(0, 20, 60, speed=1000))],
)
def test_node_hours_are_those_of_rays_own_autoscaler(group, scaling):
    part = slice_of(jobs(3), group, start_h=15, hours=1)
    nodes = replace(pool(group), boot_sigma=0.0, **FAKE_NODES)
    until_s = HOUR_S
    real = replay(part, scaling, nodes, until_s, np.random.default_rng(1))
    model = Group(scaling, nodes, np.random.default_rng(1))
    model.submit(part)
    usage = model.finish(until_s)
    assert len(part) >= 3 and len(real.waits_s) >= 3, "the slice has work in it"
    assert usage.node_hours == pytest.approx(real.node_hours, rel=0.03)
    assert sorted(usage.waits_s) == pytest.approx(sorted(real.waits_s), abs=30)
