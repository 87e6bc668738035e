"""What takes longer than the figures of `python -m tests.bench serving`: faults under load, and the gateway's memory.

python -m tests.bench.serving faults [--requests 10000] [--only replicas]
python -m tests.bench.serving memory [--requests 100000]
python -m tests.bench.serving speed
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.bench.serving import faults, speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["faults", "memory", "speed"])
    parser.add_argument("--requests", type=int, help="default: 10,000 for faults, 100,000 for memory")
    parser.add_argument("--only", choices=list(faults.SCENARIOS), help="one kind of fault")
    options = parser.parse_args()
    if options.what == "faults":
        names = [options.only] if options.only else list(faults.SCENARIOS)
        held = asyncio.run(faults.play(names, options.requests or 10_000))
    else:
        lines = list(speed.figures() if options.what == "speed" else speed.memory(options.requests or 100_000))
        for name, value, bar, met in lines:
            print(f"| {name} | {value} | {bar} | {'met' if met else 'MISSED'} |")
        held = all(met for *_, met in lines)
    sys.exit(not held)


if __name__ == "__main__":
    main()
