"""Runs that do not get on."""

from __future__ import annotations

from collections.abc import Iterator

from ops.health.checks.clusters import minutes
from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Observed
from ops.health.settings import HealthSettings

_WAITING = ("", "Initializing", "Waiting", "Suspending", "Retrying")


def stuck(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Runs that wait for their cluster for too long. A run that trains may take days."""
    for job in observed.jobs:
        age_s = (observed.at - job.since).total_seconds()
        if job.status in _WAITING and age_s > settings.run_s:
            why = next(
                (f": {pod.obstacle}" for pod in observed.pods if pod.cluster == job.cluster and pod.obstacle), ""
            )
            sentence = f"run {job.name} is {job.status or 'untouched by the operator'} for {minutes(age_s)}{why}"
            yield Finding(Id.RUN_STUCK, f"RayJob/{job.name}", Severity.WARNING, sentence)


def submitters(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Submitters that end with an error before the run does: the run works on, unseen, or never began."""
    for job in observed.jobs:
        if job.submitter_failures:
            said = f": {job.message}" if job.message else ""
            sentence = f"the submitter of {job.name} has failed {job.submitter_failures} times{said}"
            yield Finding(Id.SUBMITTER_FAILING, f"RayJob/{job.name}", Severity.WARNING, sentence)
