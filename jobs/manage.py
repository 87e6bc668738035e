"""`make runs | status | logs | stop | resume | fetch`: what has become of runs, here and on clusters alike.

    python -m jobs.manage runs
    python -m jobs.manage status --run train-20261122-101500-3fa9 --profile aws
    python -m jobs.manage logs --run train-20261122-101500-3fa9 --follow
    python -m jobs.manage fetch --run train-20261122-101500-3fa9 --profile aws --output my-model

A run is its directory in storage; one on a cluster has a RayJob of the same name beside it. The profile says which
storage and which cluster is meant.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from jobs import cli, run_state, settings
from jobs.cluster import attach, profile
from jobs.cluster.diagnosis import Finding, Observed, diagnose
from jobs.cluster.follow import follow
from jobs.cluster.helm import Helm
from jobs.cluster.kube import Cluster, NotThere, age_s, submitter_pods
from jobs.cluster.profile import LOCAL, Profile
from jobs.errors import EnvironmentNotReady, HaetsalError, RemoteError, UsageError
from jobs.run_lock import holder
from jobs.run_owner import read_owner
from jobs.runs import Run, last_end, read_events, run_ids
from jobs.storage import Storage

_SHOWN = 30
"""Newest runs in the list; each costs a read of its events."""
_QUESTIONS_AT_ONCE = 8
_LOOK_EVERY_S = 1.0
_STOP_LIMIT_S = 600.0
"""Longest wait for a local run to write its checkpoint and end."""
_PRODUCTS = ("model", "report")


@dataclass(frozen=True)
class Place:
    """The storage and, on a profile that is not local, the cluster that the verbs below are about."""

    name: str
    storage: Storage
    profile: Profile | None

    @cached_property
    def cluster(self) -> Cluster | None:
        """None on this machine."""
        return Cluster(self.profile) if self.profile else None

    def finding(self, run: Run) -> Finding | None:
        """What the run's RayJob says; None without one."""
        return attach.look(self.cluster, run.id, self.profile) if self.cluster and self.profile else None

    def where(self, run_id: str) -> str:
        """Where its RayJob is."""
        return f"{self.name}: rayjob {self.profile.namespace}/{run_id}" if self.profile else ""

    def command(self, verb: str, run_id: str) -> str:
        """What a person types."""
        return attach.command(verb, run_id, self.name) if self.profile else f"make {verb} RUN={run_id}"


def runs(place: Place, _: argparse.Namespace) -> None:
    """List the newest runs: id, state, start, progress, place."""
    known = run_ids(place.storage)
    newest = sorted(known, key=lambda run_id: run_id.rsplit("-", 3)[1:])[-_SHOWN:]
    findings = _findings(place, newest)
    rows = [run_state.row(Run(place.storage, run_id), findings.get(run_id), place.where(run_id)) for run_id in newest]
    for row in rows:
        progress = str(row.progress or "")
        print(f"{row.run_id:<34} {row.job:<11} {row.state:<12} {row.started.astimezone():%m-%d %H:%M}  "
              f"{progress:<22} {row.where}".rstrip())  # fmt: skip
    if not rows:
        print(f"no runs in {place.storage.address('runs')}")
    elif len(known) > len(rows):
        print(f"and {len(known) - len(rows)} older ones in {place.storage.address('runs')}")


def status(place: Place, options: argparse.Namespace) -> None:
    """Say everything about one run."""
    run = Run.open(place.storage, options.run)
    finding = place.finding(run)
    row = run_state.row(run, finding, place.where(run.id))
    lines = {
        "run": run.id,
        "state": row.state,
        "on the cluster": finding.sentence if finding else "",
        "where": row.where,
        "started": f"{row.started.astimezone():%Y-%m-%d %H:%M:%S}",
        "progress": str(row.progress or ""),
        "ended with": f"{row.end.kind}: {row.end.reason}" if row.end and row.state != "finished" else "",
        "attempts": _attempts(run),
        "directory": run.address(),
    }
    for name, value in lines.items():
        if value:
            print(f"{name:<15} {value}")
    if row.state == "finished":
        for name, value in run.result().items():
            if isinstance(value, int | float | str):
                print(f"  {name:<22} {value:.5g}" if isinstance(value, float) else f"  {name:<22} {value}")


def logs(place: Place, options: argparse.Namespace) -> None:
    """Show a run's log; with FOLLOW=1 stay with it and end as it ends."""
    run = Run.open(place.storage, options.run)
    cluster, at = place.cluster, place.profile
    observed = cluster.observe(run.id) if cluster else None
    if observed is None or observed.job is None:
        _show_events(run, follow_on=options.follow)
        return
    assert cluster and at
    finding = diagnose(observed, age_s(observed.job, datetime.now(UTC)), at.operator_deadline_s)
    if options.follow and not finding.is_over:
        finding = follow(cluster, run.id, at, attach.say, gives_up=False)
    elif not _show_pods(cluster, observed):
        _show_events(run, follow_on=False)
    if options.follow:
        attach.conclude(run, finding, place.name)
    else:
        print(f"{run.id} {finding.sentence}")


def stop(place: Place, options: argparse.Namespace) -> None:
    """Stop a run; it can be resumed."""
    run = Run.open(place.storage, options.run)
    if run.finished:
        raise UsageError(f"{run.id}: is finished already; its result is at {run.address()}")
    if place.profile and place.cluster:
        if place.finding(run) is None:
            raise UsageError(f"{run.id}: is not at work on {place.name}; go on with {place.command('resume', run.id)}")
        attach.stop(run, Helm.find(place.profile))
    else:
        _stop_here(run)
    print(f"{run.id} stopped; go on with: {place.command('resume', run.id)}")


def resume(place: Place, options: argparse.Namespace) -> None:
    """Go on with an unfinished run; here in this terminal."""
    if place.profile:
        attach.resume(options.run, place.name, place.profile)
        return
    run = Run.open(place.storage, options.run)
    sys.stdout.flush()
    arguments = ["--resume", run.id, "--set", f"storage.root={run.storage.root}"]
    take_over = ["--take-over"] if options.take_over else []
    os.execv(sys.executable, [sys.executable, "-m", f"jobs.{run.job}", *arguments, *take_over])


def fetch(place: Place, options: argparse.Namespace) -> None:
    """Copy model and report of a finished run to a folder here, checksums verified."""
    run = Run.open(place.storage, options.run)
    run.result()
    target = options.output or Path(run.id)
    products = [name for name in _PRODUCTS if run.storage.exists(run.path(name, "manifest.json"))]
    if not products:
        raise UsageError(f"{run.address()}: has neither model nor report to fetch")
    for name in products:
        if (target / name).exists():
            raise UsageError(f"{target / name}: is there already; choose another OUTPUT or remove it")
    for name in products:
        run.storage.fetch_tree(run.path(name), target / name)
        print(target / name)


def _findings(place: Place, run_ids: Sequence[str]) -> dict[str, Finding]:
    """By the RayJobs' status alone; one question for each run, because a cluster may keep thousands of RayJobs.

    A cluster that is away takes nothing from the list but this.
    """
    if not (place.profile and place.cluster and run_ids):
        return {}
    try:
        jobs = [place.cluster.job(run_ids[0])]  # alone: a cluster that never answers is waited for once
        with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as pool:
            jobs += pool.map(place.cluster.job, run_ids[1:])
    except (RemoteError, EnvironmentNotReady) as error:
        print(f"without what the cluster knows: {error}", file=sys.stderr)
        return {}
    patience_s = place.profile.operator_deadline_s
    return {run_id: attach.at_a_glance(job, patience_s) for run_id, job in zip(run_ids, jobs, strict=True) if job}


def _attempts(run: Run) -> str:
    if run.storage.is_local:
        return ""
    owner = read_owner(run.storage, run.path())
    if owner is None:
        return ""
    doing = "is at work" if owner.held else "has left"
    return f"{owner.attempt}; the last one {doing} ({owner.unit or owner.host})"


def _show_pods(cluster: Cluster, observed: Observed) -> bool:
    """Print the logs of the submitter's pods; False if there are none."""
    shown = False
    for pod in submitter_pods(observed):
        with suppress(NotThere, RemoteError):  # a pod that has not begun, or whose node is gone
            for _, line in cluster.log(pod["metadata"]["name"], follow=False):
                print(line)
                shown = True
    return shown


def _show_events(run: Run, *, follow_on: bool) -> None:
    shown = 0
    while True:
        at_work = holder(run.storage, run.path()) is not None
        events = read_events(run)
        for event in events[shown:]:
            print(run_state.line(event), flush=True)
        shown = len(events)
        if not follow_on or not at_work:
            break
        time.sleep(_LOOK_EVERY_S)  # S3 and disks alike: neither tells when a file grows
    end = last_end(run)
    if follow_on and not run.finished and end:
        raise attach.RunFailed(f"{run.id}: {end.kind}: {end.reason}", end.exit_code or HaetsalError.exit_code)


def _stop_here(run: Run) -> None:
    """Ask the process that holds the run to end, and wait until it has."""
    held = holder(run.storage, run.path())
    if held is None:
        raise UsageError(f"{run.id}: is not at work; go on with make resume RUN={run.id}")
    if not held.is_here:
        raise UsageError(f"{run.id}: works on {held.host} as process {held.pid}; stop it there")
    try:
        process = os.pidfd_open(held.pid)
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        return  # it ended by itself just now
    except PermissionError:
        raise EnvironmentNotReady(f"process {held.pid} belongs to another user; ask them to stop {run.id}") from None
    print(f"process {held.pid} stops after this step with a checkpoint", flush=True)
    ended, _, _ = select.select([process], [], [], _STOP_LIMIT_S)
    os.close(process)
    if not ended:
        raise RemoteError(
            f"process {held.pid} has not ended within {_STOP_LIMIT_S:.0f} s; end it with: kill -9 {held.pid}"
        )


_VERBS = {"runs": runs, "status": status, "logs": logs, "stop": stop, "resume": resume, "fetch": fetch}


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("verb", choices=_VERBS)
    profile.add_options(options)
    options.add_argument("--run", metavar="RUN_ID", help="the run; all verbs but `runs` need it")
    options.add_argument("--follow", action="store_true", help="logs: stay with the run until it ends")
    options.add_argument(
        "--take-over", action="store_true", help="resume: supersede a process on a machine that is gone"
    )
    options.add_argument("--output", type=Path, metavar="FOLDER", help="fetch: where to (default: ./<run-id>)")
    arguments = options.parse_args()
    if arguments.verb != "runs" and not arguments.run:
        raise UsageError(f"which run? make {arguments.verb} RUN=<run-id>; `make runs` lists them")
    at = None if arguments.profile == LOCAL else profile.load(arguments.profile, arguments.env)
    tree = settings.load(arguments.config, arguments.overrides, base=at.base if at else None)
    _VERBS[arguments.verb](Place(arguments.profile, Storage(tree.storage.root), at), arguments)


if __name__ == "__main__":
    cli.main(main)
