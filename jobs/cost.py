"""`make cost`: what the runs of a period have cost, by their own records.

    python -m jobs.cost                                              # this month
    python -m jobs.cost --since 2026-11-01 --until 2026-11-15 --profile aws
    python -m jobs.cost --prometheus http://127.0.0.1:9090           # and what serving has cost, per million tokens

A run counts in the period that it began in. Prices are those in each run's config.yaml (`cost.usd_per_hour`).
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

from jobs import cli, settings
from jobs.cluster import profile
from jobs.cluster.profile import LOCAL
from jobs.costs import served
from jobs.costs.month import Row, rows, totals
from jobs.errors import UsageError
from jobs.storage import Storage


def _day(text: str | None, default: date, option: str) -> date:
    try:
        return date.fromisoformat(text) if text else default
    except ValueError:
        raise UsageError(f"{option} {text}: is no day; write it like 2026-11-23") from None


def table(found: list[Row], sums: dict[str, Any]) -> str:
    """One line a run, then the sums."""
    lines = [f"{'run':<34} {'hours':>8} {'million tokens':>15} {'USD':>10} {'idle USD':>10}"]
    for row in found:
        usd = f"{row.usd:10.2f} {row.idle_usd:10.2f}" if row.usd is not None else row.problem or "no price"
        lines.append(f"{row.run_id:<34} {row.seconds / 3600:8.2f} {row.tokens / 1e6:15.3f} {usd}")
    each = sums["usd_per_million_trained_tokens"]
    lines.append(
        f"{sums['runs']} runs: {sums['usd']:.2f} USD, of it {sums['idle_usd']:.2f} while no step ran"
        + (f"; {each:.2f} USD per million trained tokens" if each is not None else "")
    )
    if sums["runs_without_price"]:
        lines.append(f"{sums['runs_without_price']} of them have no price: set cost.usd_per_hour")
    if "served" in sums:
        it = sums["served"]
        said = f"{it['usd_per_million_tokens']:.2f} USD per million" if it["tokens"] else "no tokens"
        lines.append(
            f"served {it['tokens'] / 1e6:.3f} million tokens on {it['machine_hours']:.2f} machine hours: {said}"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    profile.add_options(options)
    options.add_argument("--since", metavar="DAY", help="first day, UTC (default: the first of this month)")
    options.add_argument("--until", metavar="DAY", help="last day, UTC (default: today)")
    options.add_argument("--prometheus", metavar="URL", help="asked for served tokens and inference machines")
    options.add_argument("--json", action="store_true", help="sums and rows as one JSON object")
    arguments = options.parse_args()
    at = None if arguments.profile == LOCAL else profile.load(arguments.profile, arguments.env)
    tree = settings.load(arguments.config, arguments.overrides, base=at.base if at else None)
    today = datetime.now(UTC).date()
    last = _day(arguments.until, today, "--until")
    first = _day(arguments.since, last.replace(day=1), "--since")
    if first > last:
        raise UsageError(f"--since {first} is after --until {last}")
    found = list(rows(Storage(tree.storage.root), first, last))
    sums = totals(found)
    if arguments.prometheus:
        sums["served"] = served.ask(arguments.prometheus, first, last, tree.cost.usd_per_hour.get("inference"))
    if arguments.json:
        print(json.dumps(sums | {"since": str(first), "until": str(last), "rows": [vars(row) for row in found]}))
    else:
        print(table(found, sums))


if __name__ == "__main__":
    cli.main(main)
