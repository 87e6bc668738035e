"""How we know what autoscaling saves. Each command prints Markdown tables, which the README beside this file shows.

python -m tests.bench.autoscaling compare       static provisioning, the guide's policy and ours
python -m tests.bench.autoscaling choose        ways to scale, from which ours was chosen on other weeks
python -m tests.bench.autoscaling validate      the model against Ray's own autoscaler
python -m tests.bench.autoscaling sensitivity   what the result depends on; writes plots with --plots FOLDER
python -m tests.bench.autoscaling scale         run time of the model up to 10,000 nodes
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.autoscaling import tables


def main() -> None:
    """Print the named tables. Exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["compare", "choose", "validate", "sensitivity", "scale"])
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="with sensitivity: write its plots here, SVG")
    arguments = parser.parse_args()
    if arguments.command == "sensitivity":
        met = tables.sensitivity(arguments.plots)
    else:
        met = getattr(tables, arguments.command)()
    sys.exit(not met)


if __name__ == "__main__":
    main()
