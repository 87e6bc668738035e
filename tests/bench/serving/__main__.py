"""Faults of serving and the gateway's memory, apart from the figures of `python -m tests.bench serving`: they take long.

    python -m tests.bench.serving faults [--requests 10000] [--only replicas]
    python -m tests.bench.serving memory [--requests 100000]
    python -m tests.bench.serving speed
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.bench.serving import faults, speed

SCENARIOS = ("silence", "overload", "gateways", "processes", "changes", "replicas")


def _faults(requests: int, only: str | None) -> bool:
    if only is None:
        return all(outcome.holds for outcome in asyncio.run(faults.every(requests)))
    given = (requests,) if only == "replicas" else ()
    ended = asyncio.run(getattr(faults, only)(*given))
    outcomes = ended if isinstance(ended, list) else [ended]
    print(faults.HEADER, *(outcome.line() for outcome in outcomes), sep="\n")
    return all(outcome.holds for outcome in outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["faults", "memory", "speed"])
    parser.add_argument("--requests", type=int, help="default: 10,000 for faults, 100,000 for memory")
    parser.add_argument("--only", choices=SCENARIOS, help="one kind of fault")
    options = parser.parse_args()
    if options.what == "faults":
        held = _faults(options.requests or 10_000, options.only)
    else:
        lines = list(speed.figures() if options.what == "speed" else speed.memory(options.requests or 100_000))
        for name, value, bar, met in lines:
            print(f"| {name} | {value} | {bar} | {'met' if met else 'MISSED'} |")
        held = all(met for *_, met in lines)
    sys.exit(not held)


if __name__ == "__main__":
    main()
