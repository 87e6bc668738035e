"""What spoils with time: certificates, backups, drills."""

from __future__ import annotations

from collections.abc import Iterator

from ops.health.checks.clusters import minutes
from ops.health.finding import Finding, Id, Severity
from ops.health.observed import Observed
from ops.health.settings import HealthSettings

_DAY_S = 86_400


def certificates(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """TLS certificates near their end."""
    for place, end in sorted(observed.certificates.items()):
        days = (end - observed.at).total_seconds() / _DAY_S
        if days < settings.certificate_days:
            when = f"ends in {days:.0f} days" if days > 0 else f"ended on {end:%Y-%m-%d}"
            severity = Severity.WARNING if days > 0 else Severity.CRITICAL
            yield Finding(Id.CERTIFICATE_ENDING, place, severity, f"the certificate of {place} {when}")


def backups(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Whether the platform could be rebuilt as it was lately."""
    backup = observed.backup
    if backup is None:  # not seen, which is a finding of its own
        return
    if backup.damage:
        yield Finding(Id.BACKUP_DAMAGED, "backup", Severity.CRITICAL, f"a newer backup is damaged: {backup.damage}")
    if backup.finished is None:
        yield Finding(Id.BACKUP_STALE, "backup", Severity.CRITICAL, "there is no Completed backup")
        return
    age_s = (observed.at - backup.finished).total_seconds()
    if age_s > settings.backup_age_s:
        sentence = f"the newest Completed backup, {backup.id}, is {minutes(age_s)} old"
        yield Finding(Id.BACKUP_STALE, "backup", Severity.CRITICAL, sentence)


def drills(observed: Observed, settings: HealthSettings) -> Iterator[Finding]:
    """Whether a backup was restored for trial lately."""
    if settings.drill_age_s is None or "drill" in observed.unseen:
        return
    if observed.drill is None:
        yield Finding(Id.DRILL_STALE, "drill", Severity.WARNING, "no backup was ever restored for trial")
        return
    age_s = (observed.at - observed.drill).total_seconds()
    if age_s > settings.drill_age_s:
        sentence = f"the last successful drill was {age_s / _DAY_S:.0f} days ago"
        yield Finding(Id.DRILL_STALE, "drill", Severity.WARNING, sentence)
