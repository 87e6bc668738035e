"""`make doctor`: is everything there that `make apply` needs? One line per check, and what to do about each failure."""

import argparse

import boto3

from jobs.cli import main
from jobs.errors import EnvironmentNotReady
from ops.cloud_checks import Check, run_checks
from terraform.settings import load_environment
from terraform.versions import load_prices, load_versions


def render(checks: list[Check]) -> str:
    """The checks as aligned lines."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.passed else 'FAIL'}  {check.name:<{width}}  {check.detail}")
        if not check.passed:
            lines.append(f"      {'':<{width}}  -> {check.fix}")
    return "\n".join(lines)


def doctor(name: str) -> None:
    """Check environment `name`. Raises EnvironmentNotReady if anything failed."""
    environment = load_environment(name)
    session = boto3.Session(region_name=environment.region)
    checks = run_checks(environment, load_versions(), load_prices(), session)
    print(render(checks))
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise EnvironmentNotReady(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check what `make apply` needs")
    parser.add_argument("--env", default="dev", help="environment: a file in terraform/environments")
    options = parser.parse_args()
    main(lambda: doctor(options.env))
