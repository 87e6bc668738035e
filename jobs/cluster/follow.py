"""Stay with a run on a cluster: say what it does and why not, show its log, end as it ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from jobs.cluster.diagnosis import Finding, Observed, Phase, diagnose
from jobs.cluster.kube import Cluster, NotThere, age_s, submitter_pods
from jobs.cluster.mirror import Mirror
from jobs.cluster.profile import Profile
from jobs.errors import EnvironmentNotReady, RemoteError

Say = Callable[[str], None]

_LOOK_EVERY_S = 1.0
_HOPELESS_AFTER_S = 30.0
"""An obstacle that waiting cannot remove may still be the moment's: the API's objects arrive in any order."""
_LAST_LINES_S = 20.0
"""Longest wait for the rest of the log after the end."""


class NotStarted(EnvironmentNotReady):
    """The run did not start within its deadline, or never can. Exit code 3."""


def follow(cluster: Cluster, run_id: str, profile: Profile, say: Say, *, gives_up: bool) -> Finding:
    """Watch a run until it is over; each change of its state and each line of its log goes to `say`.

    With `gives_up` a run that does not start within `profile.start_deadline_s`, or meets an obstacle that waiting
    cannot remove, raises NotStarted with the reason. Raises RemoteError if the API server stays away for two minutes.
    """
    news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    patience = _Patience(profile)
    logs = _Logs(cluster, news)
    said = ""
    with Mirror(cluster, run_id, news) as mirror:
        while True:
            finding = _look(cluster, run_id, profile, mirror, logs)
            trouble = mirror.trouble
            state = f"{trouble}; still trying" if trouble and not finding.is_over else finding.sentence
            if state != said:
                said = state
                say(f"{datetime.now():%H:%M:%S} {run_id} {state}")
            if finding.is_over:
                logs.finish()
                _drain(news, say)
                return finding
            if gives_up:
                patience.check(finding)
            _drain(news, say, _LOOK_EVERY_S)


def _look(cluster: Cluster, run_id: str, profile: Profile, mirror: Mirror, logs: _Logs) -> Finding:
    observed = cluster.about(run_id, mirror.objects())
    logs.show(observed)
    age = age_s(observed.job, datetime.now(UTC))
    finding = diagnose(observed, age, profile.operator_deadline_s)
    if finding.obstacle and finding.obstacle.kind == "operator":
        finding = diagnose(replace(observed, operators=cluster.operators()), age, profile.operator_deadline_s)
    return finding


def _drain(news: queue.SimpleQueue[str | None], say: Say, wait_s: float = 0.0) -> None:
    """Hand on what has come; wait up to `wait_s` for the first of it."""
    try:
        item = news.get(timeout=wait_s) if wait_s else news.get_nowait()
        while True:
            if item is not None:
                say(item)
            item = news.get_nowait()
    except queue.Empty:
        return


@dataclass
class _Patience:
    """How long a run may not run."""

    profile: Profile
    started: float = field(default_factory=time.monotonic)
    hopeless: tuple[str, float] | None = None

    def check(self, finding: Finding) -> None:
        """Raise NotStarted when it is over. A run that has once begun is waited for as long as it takes."""
        now = time.monotonic()
        if finding.phase is Phase.RUNNING:
            self.started = now
        obstacle = finding.obstacle if finding.phase is Phase.WAITING else None
        if obstacle is None or not obstacle.hopeless:
            self.hopeless = None
        elif self.hopeless is None or self.hopeless[0] != obstacle.kind:
            self.hopeless = (obstacle.kind, now)
        elif now - self.hopeless[1] >= min(_HOPELESS_AFTER_S, self.profile.operator_deadline_s):
            raise NotStarted(f"the run cannot start: {finding.sentence}")
        if finding.phase is Phase.WAITING and now - self.started > self.profile.start_deadline_s:
            raise NotStarted(f"the run did not start within {self.profile.start_deadline_s} s: {finding.sentence}")


class _Logs:
    """Shows the log of each submitter's pod. A stream that ends while its pod still runs is taken up where it was."""

    def __init__(self, cluster: Cluster, news: queue.SimpleQueue[str | None]) -> None:
        self._cluster, self._news = cluster, news
        self._threads: dict[str, threading.Thread] = {}
        self._shown: dict[str, str] = {}

    def show(self, observed: Observed) -> None:
        """Start reading what is not being read."""
        for pod in submitter_pods(observed):
            name, phase = pod["metadata"]["name"], (pod.get("status") or {}).get("phase")
            thread = self._threads.get(name)
            is_new = thread is None and phase in ("Running", "Succeeded", "Failed")
            if is_new or (thread and phase == "Running" and not thread.is_alive()):
                self._threads[name] = threading.Thread(target=self._copy, args=(name,), name=f"log-{name}", daemon=True)
                self._threads[name].start()

    def finish(self) -> None:
        """Wait for what is left of the logs: the job is over, so they end."""
        deadline = time.monotonic() + _LAST_LINES_S
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _copy(self, pod: str) -> None:
        # The pod has gone, or its node or the API server is away; the state says so if it stays that way.
        with suppress(NotThere, RemoteError):
            for stamp, line in self._cluster.log(pod, follow=True, since=self._shown.get(pod, "")):
                self._shown[pod] = stamp
                self._news.put(line)
