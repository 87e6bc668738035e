"""RayServices, their applications, and whether requests are answered."""

from __future__ import annotations

from collections.abc import Iterator

from ops.health.checks.clusters import active, minutes, missing_services, scope
from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Application, Observed
from ops.health.settings import HealthSettings

_BROKEN = ("UNHEALTHY", "DEPLOY_FAILED")
_COMING = ("NOT_STARTED", "DEPLOYING")


def services(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Services that must be there, and those that the operator does not call ready."""
    if "RayServices" not in observed.unseen:
        for name in missing_services(observed, settings):
            yield Finding(Id.SERVICE_MISSING, f"RayService/{name}", Severity.CRITICAL, f"RayService {name} is gone")
    for row in observed.services:
        if row.up or row.suspended or row.leaving:
            continue
        age_s = (observed.at - row.since).total_seconds()
        if row.applications or age_s > settings.start_s:
            sentence = f"RayService {row.name} has not been ready for {minutes(age_s)}"
            yield Finding(Id.SERVICE_NOT_READY, f"RayService/{row.name}", Severity.CRITICAL, sentence)


def applications(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Serve's own words for its applications: from the dashboard, or else as the operator last read them."""
    for where, application in _applications(observed):
        target = f"{where}/{application.name}"
        said = f": {application.message}" if application.message else ""
        if application.status in _BROKEN:
            sentence = f"application {application.name} of {where} is {application.status}{said}"
            yield Finding(Id.APPLICATION_UNHEALTHY, target, Severity.CRITICAL, sentence, where)
        elif application.status in _COMING and application.since:
            age_s = (observed.at - application.since).total_seconds()
            if age_s > settings.start_s:
                sentence = (
                    f"application {application.name} of {where} is {application.status} for {minutes(age_s)}{said}"
                )
                yield Finding(Id.APPLICATION_STUCK, target, Severity.WARNING, sentence, where)


def answers(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Whether Serve's proxies answer, as a request would find out."""
    for name, probe in sorted(observed.serving.items()):
        if probe.problem:
            sentence = f"RayService {name} is called ready, but {probe.address} does not serve: {probe.problem}"
            yield Finding(Id.SERVE_DOWN, f"RayService/{name}", Severity.CRITICAL, sentence)


def _applications(observed: Observed) -> Iterator[tuple[str, Application]]:
    told = set()
    for row in active(observed):
        dashboard = observed.dashboards.get(row.name)
        if dashboard and not (dashboard.probe.problem or dashboard.gcs):
            told.add(row.name)
            yield from ((scope(row), application) for application in dashboard.applications)
    for service in observed.services:
        if service.cluster not in told and not (service.suspended or service.leaving):
            yield from ((f"RayService/{service.name}", application) for application in service.applications)
