"""What an environment costs per month by the price table: a floor (smallest pools) and a ceiling (all pools at max)."""

from dataclasses import dataclass

from terraform.node_pool import NodePool
from terraform.settings import INTERFACE_ENDPOINTS, Environment
from terraform.versions import Prices


@dataclass(frozen=True)
class Line:
    """One row: USD per month at the least and at the most."""

    what: str
    least_usd: float
    most_usd: float


def estimate(environment: Environment, prices: Prices) -> list[Line]:
    """Fixed costs and pools of `environment`. Usage (traffic, requests, stored bytes, logs) is not in it."""
    hours, services = prices.hours_per_month, prices.services
    zones = len(environment.network.zones)
    gateways = zones if environment.network.nat == "per-zone" else 1
    keys = 2 + (1 if environment.storage.replica_region else 0)
    rows = [
        ("EKS control plane", services.eks_cluster_hour * hours),
        (
            f"NAT gateways with an address ({gateways})",
            gateways * (services.nat_gateway_hour + services.public_ipv4_hour) * hours,
        ),
        (
            f"interface endpoints ({len(INTERFACE_ENDPOINTS)} in {zones} zones)",
            len(INTERFACE_ENDPOINTS) * zones * services.interface_endpoint_zone_hour * hours,
        ),
        (f"KMS keys ({keys})", keys * services.kms_key_month),
    ]
    if environment.database:
        database, copies = environment.database, 2 if environment.database.multi_az else 1
        instance = prices.databases[database.instance_class].usd_per_hour * hours
        usd = copies * (instance + database.storage_gib * services.rds_gp3_gib_month) + services.secret_month
        rows.append((f"PostgreSQL {database.instance_class}{', two zones' if copies == 2 else ''}", usd))
    fixed = [Line(what, usd, usd) for what, usd in rows]
    return fixed + [_pool(pool, prices) for pool in environment.node_pools]


def _pool(pool: NodePool, prices: Prices) -> Line:
    """A pool at the dearest of its types and the on-demand price, which spot stays below."""
    dearest = max(prices.instances[name].usd_per_hour for name in pool.instance_types)
    node = dearest * prices.hours_per_month + pool.disk_gib * prices.services.gp3_gib_month
    return Line(f"pool {pool.name} ({pool.min} to {pool.max} nodes)", pool.min * node, pool.max * node)


def report(environment: Environment, prices: Prices) -> str:
    """The estimate as a table, with its assumptions."""
    lines = estimate(environment, prices)
    least, most = sum(line.least_usd for line in lines), sum(line.most_usd for line in lines)
    width = max(len(line.what) for line in lines)
    rows = [f"  {line.what:<{width}}  {line.least_usd:>12,.0f}  {line.most_usd:>12,.0f}" for line in lines]
    elsewhere = "" if environment.region == prices.region else f" (yours is {environment.region}: expect a difference)"
    budget = environment.budget.monthly_usd
    return "\n".join(
        [
            f"Monthly estimate of {environment.name}, USD: smallest pools, and every pool at its max all month",
            *rows,
            f"  {'total':<{width}}  {least:>12,.0f}  {most:>12,.0f}",
            f"  budget {budget:,} USD{': BELOW the smallest estimate' if budget < least else ''}",
            f"  On-demand list prices of {prices.region} of {prices.written_on}{elsewhere}; spot costs less.",
            "  Not in it: traffic, requests, stored bytes, logs, tax. Check the prices: head of terraform/prices.yaml.",
        ]
    )
