"""`python -m terraform.platform_facts ENV FILE`: what jobs must know of an environment, derived from its file alone."""

import json
import sys
from pathlib import Path
from typing import Any

from jobs.cli import main
from terraform.settings import Environment, load_environment
from terraform.versions import Prices, load_prices


def facts(environment: Environment, prices: Prices) -> dict[str, Any]:
    """Values of a profile (`jobs.cluster.profile.Profile`); names as the stacks give them."""
    return {
        "cost": cost(environment, prices),
        "kube_context": environment.cluster_name,
        "storage_root": f"s3://{environment.bucket_name('artifacts')}",
        "registry": environment.registry,
    }


def cost(environment: Environment, prices: Prices) -> dict[str, Any]:
    """The settings' section `cost`: a pool at the dearest of its types and on demand, which spot stays below."""
    dearest = {
        pool.workload: max(prices.instances[name].usd_per_hour for name in pool.instance_types)
        for pool in environment.node_pools
    }
    return {
        "usd_per_hour": {workload: usd for workload, usd in dearest.items() if workload != "system"},
        "head_usd_per_hour": dearest.get("system", 0.0),
        "prices_of": str(prices.written_on),
        "month_budget_usd": environment.budget.monthly_usd,
    }


def write(name: str, path: Path) -> None:
    """Write the facts of environment `name` to `path`, whole or not at all."""
    text = json.dumps(facts(load_environment(name), load_prices()), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main(lambda: write(sys.argv[1], Path(sys.argv[2])))
