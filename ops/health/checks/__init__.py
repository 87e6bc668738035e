"""Every check: a pure function from what was observed to what is wrong. One module per subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ops.health.checks import clusters, freshness, nodes, runs, services, serving
from ops.health.finding import Finding, Id
from ops.health.observed import Observed
from ops.health.settings import HealthSettings

Check = Callable[[Observed, HealthSettings], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    services.sources,
    clusters.operator,
    clusters.clusters,
    clusters.heads,
    clusters.workers,
    serving.services,
    serving.applications,
    serving.answers,
    services.gateway,
    services.tracking,
    services.stores,
    runs.stuck,
    runs.submitters,
    nodes.nodes,
    nodes.disks,
    freshness.certificates,
    freshness.backups,
    freshness.drills,
)


def check(observed: Observed, settings: HealthSettings) -> list[Finding]:
    """Everything that is wrong, causes before what follows from them."""
    order = list(Id)
    found = [finding for one in CHECKS for finding in one(observed, settings)]
    return sorted(found, key=lambda finding: (order.index(finding.id), finding.target))
