"""What is repaired, when, and what never is: pure functions over a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from healthy import HEALTHY, JOB, NOW, SETTINGS, ago, with_cluster, with_dashboard, with_pod, without_pod

from ops.health.checks import check
from ops.health.finding import Id
from ops.health.observed import Application, Backup, Dashboard, Node, Observed, Probe
from ops.health.settings import RecoverySettings
from ops.recovery.decide import Case, Decision, about_repairs, decide
from ops.recovery.history import BEGUN, UNFINISHED, UNKNOWN, Attempt, History, Record, attempted, observe, unfinished
from ops.recovery.ladder import LADDERS, Repair, Step, repairs

POLICY = RecoverySettings()
FAILED = {"ready": False, "phase": "Failed"}
UNHEALTHY = with_dashboard(
    "chat-x7k2p", Dashboard(Probe("http://chat"), applications=(Application("chat", "UNHEALTHY", ""),))
)
GCS = with_dashboard("shared", Dashboard(Probe("http://shared"), "answered 503"))
LONG_BAD = Record(bad_since=ago(hours=1))


def ladder(observed: Observed) -> list[tuple[Step, str, bool]]:
    """Step, object, and whether it is forbidden, of the first finding."""
    found = repairs(check(observed, SETTINGS)[0], observed, SETTINGS)
    return [(one.step, one.name, bool(one.forbidden)) for one in found]


def test_smallest_step_first() -> None:
    assert ladder(UNHEALTHY) == [
        (Step.RESTART_APPLICATION, "chat", False),
        (Step.DELETE_POD, "chat-head", False),
        (Step.RECREATE, "chat-x7k2p", False),
    ]
    for steps in LADDERS.values():
        assert [list(Step).index(step) for step in steps] == sorted(list(Step).index(step) for step in steps)


def _jobs_on(observed: Observed, cluster: str) -> Observed:
    return replace(observed, jobs=(replace(JOB, cluster=cluster),))


HEAD = with_pod("shared-head", **FAILED)
OPERATOR_DOWN = replace(HEAD, operator=Probe("o", "down"))
FORBIDDEN: dict[str, tuple[Observed, str, Callable[[Observed], Observed]]] = {
    "a run would be lost": (HEAD, "run train-1 would be lost", lambda it: _jobs_on(it, "shared")),
    "runs cannot be seen": (HEAD, "cannot be seen whether", lambda it: replace(it, jobs=(), unseen={"RayJobs": "x"})),
    "runs of the dashboard": (
        HEAD,
        "2 runs would be lost",
        lambda it: replace(it, dashboards={"shared": Dashboard(Probe("d"), running_jobs=2)}),
    ),
    "nobody would make it again": (HEAD, "operator is down", lambda it: replace(it, operator=Probe("o", "down"))),
    "its node does not report": (
        HEAD,
        "node gpu-1 does not report",
        lambda it: replace(
            it,
            nodes=(Node("gpu-1", ready=False),),
            pods=tuple(replace(pod, node="gpu-1") if pod.name == "shared-head" else pod for pod in it.pods),
        ),
    ),
    "the operator cannot be seen": (HEAD, "operator cannot be seen", lambda it: replace(it, operator=None)),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_head_is_not_destroyed(name: str) -> None:
    before, words, change = FORBIDDEN[name]
    assert ladder(before) == [(Step.DELETE_POD, "shared-head", False), (Step.RECREATE, "shared", False)]
    observed = change(before)
    finding = next(one for one in check(observed, SETTINGS) if one.id is Id.HEAD_DOWN)
    found = repairs(finding, observed, SETTINGS)
    assert [words in one.forbidden for one in found] == [True, True]
    (decision,) = decide([Case(finding, found)], {finding.scope: LONG_BAD}, NOW, POLICY)
    assert decision.repair is None
    assert words in decision.reason


def test_a_head_whose_state_is_kept_elsewhere_may_be_deleted_under_a_run() -> None:
    observed = _jobs_on(with_cluster("shared", fault_tolerant=True), "shared")
    observed = replace(observed, pods=HEAD.pods)
    assert ladder(observed)[0] == (Step.DELETE_POD, "shared-head", False)


@pytest.mark.parametrize(
    ("backup", "words"),
    [
        (None, "cannot be seen"),
        (Backup(), "no Completed backup"),
        (Backup("b", ago(hours=5)), "stale"),
        (Backup("b", ago(minutes=1), "sha256 differs"), "damaged"),
    ],
)
def test_a_cluster_is_not_deleted_without_a_backup_to_bring_it_back(backup: Backup | None, words: str) -> None:
    observed = replace(HEAD, backup=backup)
    found = repairs(next(one for one in check(observed, SETTINGS) if one.id is Id.HEAD_DOWN), observed, SETTINGS)
    assert not found[0].forbidden
    assert found[1].step is Step.RECREATE
    assert words in found[1].forbidden
    owned = replace(with_pod("chat-head", **FAILED), backup=backup)
    found = repairs(next(one for one in check(owned, SETTINGS) if one.id is Id.HEAD_DOWN), owned, SETTINGS)
    assert not found[1].forbidden, "its owner makes it again, no backup is needed"


def test_what_cannot_start_is_not_started_again() -> None:
    assert ladder(with_pod("chat-w2", ready=False, phase="Pending")) == []


def test_a_cluster_of_a_run_is_left_to_the_run() -> None:
    row = replace(HEALTHY.clusters[0], name=JOB.cluster, owner="RayJob/train-1")
    head = replace(HEAD.pods[0], name="train-head", cluster=JOB.cluster)
    observed = replace(HEALTHY, clusters=(*HEALTHY.clusters, row), pods=(*HEALTHY.pods, head, replace(head, name="w")))
    assert {forbidden for _, _, forbidden in ladder(observed)} == {True}


class Simulation:
    """Rounds over a clock of its own; `broken(now)` says what a look finds."""

    def __init__(self, broken: Callable[[datetime], Observed], policy: RecoverySettings = POLICY) -> None:
        self.broken, self.policy, self.history = broken, policy, dict[str, Record]()
        self.made: list[tuple[float, str, Repair]] = []
        self.decisions: tuple[Decision, ...] = ()
        self.open: set[str] = set()
        self.flapping: set[str] = set()

    def run(self, seconds: float, step_s: float = 15) -> None:
        begin = NOW
        for number in range(int(seconds / step_s) + 1):
            now = begin + timedelta(seconds=number * step_s)
            observed = replace(self.broken(now), at=now)
            found = check(observed, SETTINGS)
            self.history = dict(observe(self.history, {one.scope for one in found}, now, self.policy, False))
            cases = [Case(one, repairs(one, observed, SETTINGS)) for one in found]
            self.decisions = decide(cases, self.history, now, self.policy)
            for one in self.decisions:
                if one.repair:
                    self.made.append(((now - begin).total_seconds(), one.finding.scope, one.repair))
                    attempt = Attempt(now, one.repair.step, str(one.repair), outcome="done")
                    self.history = dict(attempted(self.history, one.finding.scope, attempt))
            for extra in about_repairs(self.history, now, self.policy):
                (self.open if extra.id is Id.REPAIRS_STOPPED else self.flapping).add(extra.target)


def _fresh(observed: Observed) -> Callable[[datetime], Observed]:
    """Backups, drills and pods age with the clock, and stay as old as they were."""
    return lambda now: replace(
        observed,
        backup=Backup("b", now - timedelta(minutes=10)),
        drill=now,
        pods=tuple(replace(pod, since=pod.since + (now - NOW)) for pod in observed.pods),
    )


def test_escalation_backoff_and_circuit() -> None:
    """Three steps, each after twice the wait, then none; after the circuit's time one more."""
    simulation = Simulation(_fresh(UNHEALTHY))
    simulation.run(4 * 3600)
    assert [repair.step for _, _, repair in simulation.made] == list(Step)
    times = [at for at, _, _ in simulation.made]
    assert times[0] == 30
    assert times[1] - times[0] >= 300
    assert times[2] - times[1] >= 600
    assert simulation.open == {"RayService/chat"}
    simulation = Simulation(_fresh(UNHEALTHY))
    simulation.run(9 * 3600)
    later = [at for at, _, _ in simulation.made][3:]
    assert len(later) == 2, "one more in each circuit's time"
    assert later[0] - times[2] >= POLICY.circuit_s


@pytest.mark.parametrize("look_s", [5, 7, 10, 15, 20, 30])
def test_flapping_every_five_seconds_is_not_repaired_over_and_over(look_s: float) -> None:
    """Up five seconds, down five: whatever the rhythm of looking, at most what the circuit lets through."""

    def flaps(now: datetime) -> Observed:
        down = int((now - NOW).total_seconds()) % 10 >= 5
        return _fresh(UNHEALTHY if down else HEALTHY)(now)

    simulation = Simulation(flaps)
    simulation.run(4 * 3600, look_s)
    assert len(simulation.made) <= POLICY.attempts
    for earlier, later in zip(simulation.made, simulation.made[1:], strict=False):
        assert later[0] - earlier[0] >= POLICY.window_s
    if look_s in (5, 7, 15):  # rhythms that see both faces; 10, 20 and 30 only ever see one
        assert simulation.made == []
        assert simulation.flapping == {"RayService/chat"}


def test_all_at_once() -> None:
    """One repair a target, few a round, causes first; and a dead operator stops those that it would have to finish."""
    worst = replace(
        HEALTHY,
        pods=tuple(replace(pod, **FAILED) for pod in HEALTHY.pods),
        services=(replace(HEALTHY.services[0], applications=UNHEALTHY.dashboards["chat-x7k2p"].applications),),
        serving={"chat": Probe("s", "refused")},
        dashboards={name: Dashboard(Probe("d", "refused")) for name in HEALTHY.dashboards},
        gateway=Probe("g", "refused"),
        tracking=Probe("m", "refused"),
    )
    simulation = Simulation(_fresh(worst), POLICY.model_copy(update={"per_round": 2}))
    simulation.run(30)
    assert [(scope, repair.name) for _, scope, repair in simulation.made] == [
        ("RayService/chat", "chat-head"),
        ("RayCluster/shared", "shared-head"),
    ]
    assert (
        "in this round already"
        in next(one for one in simulation.decisions if one.finding.id is Id.GATEWAY_POD_DOWN).reason
    )
    simulation.run(4 * 3600)
    times: dict[str, list[float]] = {}
    for at, scope, _ in simulation.made:
        times.setdefault(scope, []).append(at)
    assert set(times) == {"RayService/chat", "RayCluster/shared", "Deployment/gateway"}
    stopped = Simulation(_fresh(replace(worst, operator=Probe("o", "down"))))
    stopped.run(3600)
    assert {scope for _, scope, _ in stopped.made} == {"Deployment/gateway"}


def test_the_largest_step_waits_longest() -> None:
    """A head that nobody makes: nothing can be deleted but the cluster, which is not done on a first impression."""
    simulation = Simulation(_fresh(without_pod("chat-head")))
    simulation.run(POLICY.recreate_after_s + 30)
    assert [(at, repair.step) for at, _, repair in simulation.made] == [(POLICY.recreate_after_s, Step.RECREATE)]


def test_what_is_gone_comes_back_soon() -> None:
    simulation = Simulation(_fresh(replace(HEALTHY, clusters=HEALTHY.clusters[1:], dashboards={})))
    simulation.run(60)
    assert [(at, repair.step, repair.restores) for at, _, repair in simulation.made] == [(30, Step.RECREATE, True)]


@pytest.mark.parametrize("outcome", [BEGUN, UNKNOWN, f"{UNFINISHED}still being deleted"])
def test_an_unfinished_recreation_goes_on_at_once(outcome: str) -> None:
    """Not held back by its own back-off: something was deleted and is not back."""
    attempt = Attempt(ago(seconds=20), Step.RECREATE, "recreate", "RayCluster/shared", outcome)
    history: History = {"RayCluster/shared": Record(ago(hours=1), attempts=(attempt,) * 3)}
    assert unfinished(history) == {"RayCluster/shared"}
    observed = replace(HEALTHY, clusters=HEALTHY.clusters[1:], dashboards={}, unfinished=unfinished(history))
    (finding,) = check(observed, SETTINGS)
    (decision,) = decide([Case(finding, repairs(finding, observed, SETTINGS))], history, NOW, POLICY)
    assert decision.repair and decision.repair.step is Step.RECREATE
    done = {"RayCluster/shared": Record(ago(hours=1), attempts=(replace(attempt, outcome="brought back"),))}
    assert unfinished(done) == frozenset()


def test_blind_a_scope_is_not_called_healed() -> None:
    history: History = {"RayService/chat": Record(ago(minutes=5))}
    assert observe(history, (), NOW, POLICY, blind=True) == history
    seen = observe(history, (), NOW, POLICY, blind=False)
    assert seen["RayService/chat"].bad_since is None
    forgotten = observe(seen, (), NOW + timedelta(seconds=POLICY.calm_s), POLICY, blind=False)
    assert forgotten == {}


def test_a_clock_that_jumps_back_makes_no_repair_early() -> None:
    record = Record(ago(hours=2), attempts=(Attempt(NOW + timedelta(hours=1), Step.DELETE_POD, "delete"),))
    (finding,) = check(GCS, SETTINGS)
    (decision,) = decide([Case(finding, repairs(finding, GCS, SETTINGS))], {finding.scope: record}, NOW, POLICY)
    assert decision.repair is None
