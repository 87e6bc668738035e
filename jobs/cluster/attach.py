"""From a run's directory to its RayJob and back: hand it in, stay with it, stop it, let it go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn

from jobs import settings
from jobs.cluster import values
from jobs.cluster.diagnosis import Finding, Object, Observed, Phase, diagnose
from jobs.cluster.follow import NotStarted, follow
from jobs.cluster.helm import Helm
from jobs.cluster.kube import Cluster, age_s
from jobs.cluster.profile import Profile
from jobs.errors import HaetsalError, IntegrityError, Interrupted, UsageError
from jobs.runs import EventLog, Run, last_end, read_events
from jobs.storage import Storage

SUBMITTED = "submitted"
"""Event: the run was handed in, with profile and context."""
_GONE_WITHIN_S = 120


class RunFailed(HaetsalError):
    """The job on the cluster failed; the exit code is its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def hand_in(run: Run, profile_name: str, profile: Profile, helm: Helm) -> None:
    """Put the submission on record and install the chart. What cannot be installed leaves no fresh run behind."""
    tree = settings.from_yaml(run.config(), run.address("config.yaml"))
    asked = values.make(run.job, tree, run.config(), profile)
    is_fresh = not read_events(run)
    run.supersedes = True  # whoever held it before is known to be gone
    with run.lock(), EventLog(run) as events:
        events.append(SUBMITTED, profile=profile_name, context=profile.kube_context)
    try:
        helm.install(run.id, asked)
    except BaseException:
        helm.remove(run.id)
        if is_fresh:
            run.storage.delete_tree(run.path())
        raise


def wait(run: Run, profile_name: str, profile: Profile, cluster: Cluster, helm: Helm) -> None:
    """Stay with a run that was just handed in; return if it finished, raise as it ended otherwise.

    A run that does not start is taken back. Ctrl-C leaves it alone and raises Interrupted.
    """
    try:
        finding = follow(cluster, run.id, profile, say, gives_up=True)
    except NotStarted as error:
        withdraw(run, helm, str(error), NotStarted.__name__, NotStarted.exit_code)
        raise NotStarted(f"{error}. It was taken back; go on with: {command('resume', run.id, profile_name)}") from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"detached; the run goes on. See it with: {command('logs', run.id, profile_name)} FOLLOW=1; "
            f"end it with: {command('stop', run.id, profile_name)}"
        ) from None
    conclude(run, finding, profile_name)


def conclude(run: Run, finding: Finding, profile_name: str) -> None:
    """Say how a run ended, and end likewise."""
    if finding.phase is Phase.FINISHED or run.finished:
        if not run.finished:
            raise IntegrityError(f"{run.address()}: Ray says that the job succeeded, but it left no result.json")
        say(f"{run.id} finished; get model and report with: {command('fetch', run.id, profile_name)}")
        return
    _failed(run, finding, profile_name)


def withdraw(run: Run, helm: Helm, reason: str, kind: str, exit_code: int) -> None:
    """Remove a run's pods and record why; whatever of it still breathes is superseded and publishes nothing more."""
    helm.remove(run.id)
    if run.finished:
        return
    run.supersedes = True
    with run.lock(), EventLog(run) as events:
        events.append("failed", type=kind, reason=reason, exit_code=exit_code)


def stop(run: Run, helm: Helm) -> None:
    """Stop a run for now; its last checkpoint is what it can go on from."""
    withdraw(run, helm, "stopped by make stop", Interrupted.__name__, Interrupted.exit_code)


def resume(run_id: str, profile_name: str, profile: Profile) -> None:
    """Hand an unfinished run in again and stay with it. Raises UsageError if it is finished or at work."""
    run = Run.open(Storage(profile.storage_root), run_id)
    if run.finished:
        raise UsageError(f"{run.id}: is finished; its report is at {run.address('report')}")
    helm, cluster = Helm.find(profile), Cluster(profile)
    cluster.check()
    if (finding := look(cluster, run_id, profile)) and not finding.is_over:
        raise UsageError(f"{run.id}: is at work ({finding.sentence}); see {command('logs', run.id, profile_name)}")
    helm.remove(run.id)
    cluster.wait_gone(run.id, _GONE_WITHIN_S)
    say(f"run {run.id}\n  {run.address()}")
    hand_in(run, profile_name, profile, helm)
    wait(run, profile_name, profile, cluster, helm)


def look(cluster: Cluster, run_id: str, profile: Profile) -> Finding | None:
    """What the run's RayJob says now; None without one."""
    observed = cluster.observe(run_id)
    if observed.job is None:
        return None
    return diagnose(observed, age_s(observed.job, datetime.now(UTC)), profile.operator_deadline_s)


def at_a_glance(job: Object, operator_deadline_s: float) -> Finding:
    """What a RayJob's own status says, without looking at its pods."""
    return diagnose(Observed(job), age_s(job, datetime.now(UTC)), operator_deadline_s)


def command(verb: str, run_id: str, profile_name: str) -> str:
    """What a person types to do something with a run."""
    return f"make {verb} RUN={run_id} PROFILE={profile_name}"


def say(text: str) -> None:
    """To the terminal at once: these lines come minutes apart."""
    print(text, flush=True)


def _failed(run: Run, finding: Finding, profile_name: str) -> NoReturn:
    """The job's own words are better than what Kubernetes heard of them."""
    end = last_end(run)
    reason = f"{end.kind}: {end.reason}" if end else finding.sentence
    code = finding.exit_code or HaetsalError.exit_code
    again = (
        ""
        if code in (UsageError.exit_code, IntegrityError.exit_code)
        else (f"; go on with: {command('resume', run.id, profile_name)}")
    )
    raise RunFailed(f"{run.id}: {reason}; see {command('logs', run.id, profile_name)}{again}", code)
