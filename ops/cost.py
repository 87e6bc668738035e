"""`python -m ops.cost`: publish what this month's runs have cost, for Prometheus (ops/exporter.py)."""

from __future__ import annotations

from datetime import UTC, date, datetime

from jobs.cli import main, parser
from jobs.costs.month import rows, totals
from jobs.costs.settings import CostSettings
from jobs.errors import UsageError
from jobs.settings import load_tree
from jobs.storage import Storage
from ops import status
from ops.kube import Cluster
from ops.settings import OpsSettings


def values(storage: Storage, prices: CostSettings, today: date) -> dict[str, float | dict[str, float]]:
    """Metrics of the month that `today` is in; what is not known is absent."""
    sums = totals(list(rows(storage, today.replace(day=1), today)))
    found: dict[str, float | dict[str, float]] = {
        "cost_month_usd": sums["usd"],
        "cost_month_idle_usd": sums["idle_usd"],
    }
    if (each := sums["usd_per_million_trained_tokens"]) is not None:
        found["cost_usd_per_million_trained_tokens"] = each
    if prices.month_budget_usd is not None:
        found["cost_month_budget_usd"] = prices.month_budget_usd
    if prices.usd_per_hour:
        found["cost_machine_usd_per_hour"] = dict(prices.usd_per_hour)
    return found


def command() -> None:
    """Publish and print."""
    options = parser(__doc__ or "").parse_args()
    settings = load_tree(OpsSettings, options.config, options.overrides)
    if settings.runs.root is None:
        raise UsageError("runs.root: is not set; it is the storage.root of the runs")
    found = values(Storage(settings.runs.root), settings.cost, datetime.now(UTC).date())
    text = status.exposition(found)
    status.publish(Cluster(settings.cluster), settings.cluster.namespace, "cost", text)
    print(text, end="")


if __name__ == "__main__":
    main(command)
