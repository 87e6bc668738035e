"""Ray on a machine that is too busy for it at first."""

import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import REPOSITORY

from jobs.ray_session import start_ray

DYING_S = 30
"""Ray kills its node and does not wait for it."""
START = f"""
from {start_ray.__module__} import start_ray
start_ray()
import ray
print("up with", int(ray.cluster_resources()["CPU"]), "CPUs")
"""


@pytest.mark.long
def test_a_node_that_does_not_come_up_is_started_once_more() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as starting:
        frozen = first_raylet(starting)
        frozen.send_signal(signal.SIGSTOP)
        out, err = starting.communicate(timeout=150)

    assert starting.returncode == 0, err
    assert "up with" in out
    assert err.count("starting it once more") == 1
    deadline_s = time.monotonic() + DYING_S
    while alive(frozen):
        assert time.monotonic() < deadline_s, "the node that never came up was left behind"
        time.sleep(0.1)


def alive(process: psutil.Process) -> bool:
    """A zombie has ended; not every container has a first process that takes orphans' exit codes."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def first_raylet(starting: "subprocess.Popen[str]") -> psutil.Process:
    """Fails if `starting` ends without one."""
    while starting.poll() is None:
        for child in psutil.Process(starting.pid).children(recursive=True):
            if child.name() == "raylet":
                return child
    raise AssertionError(starting.communicate()[1])
