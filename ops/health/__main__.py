"""`make health`: what is wrong with the platform, and with --repair what can be done about it by itself.

Without --repair nothing is written and nobody is told. A single look ends with 0 (healthy), 10 (warnings) or 11
(something critical); a watch ends with 0 when its time is over, since every round of it said how things were.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import sys
import threading
import time
from collections.abc import Callable

from jobs.cli import main, parser
from jobs.errors import HaetsalError, UsageError
from ops import status
from ops.alerts.channels import open_channels
from ops.cli import Opened, opened
from ops.health import report
from ops.health.checks import check
from ops.health.gather import Gatherer
from ops.health.rounds import Checker, Report
from ops.lease import held
from ops.recovery.act import PlatformRepairer
from ops.recovery.decide import Decision
from ops.recovery.memory import ConfigMapStore

LEASE = "haetsal-health"

_log = logging.getLogger(__name__)


def _looker(it: Opened, gatherer: Gatherer) -> Callable[[], Report]:
    def look() -> Report:
        observed = gatherer.look()
        return Report(observed.at, tuple(Decision(one, None, "") for one in check(observed, it.settings.health)))

    return look


def _checker(it: Opened, gatherer: Gatherer, dry_run: bool) -> Checker:
    namespace = it.settings.cluster.namespace
    repairer = PlatformRepairer(it.settings, it.cluster, it.objects, it.sealing)
    channels = open_channels(it.settings.alerts)
    return Checker(
        it.settings, gatherer.look, ConfigMapStore(it.cluster, namespace), repairer, channels, it.objects, dry_run
    )


def _publish(it: Opened, one: Report) -> None:
    try:
        text = status.exposition(report.metrics(one))
        status.publish(it.cluster, it.settings.cluster.namespace, "health", text)
    except HaetsalError as error:
        _log.warning("metrics are not published: %s", error)


def _watch(look: Callable[[], Report], say: Callable[[Report], None], interval_s: float, seconds: float) -> Report:
    """Look again and again for `seconds`, the first time at once. Returns the last report."""
    ends_s = time.monotonic() + seconds
    while True:
        last = look()
        say(last)
        pause_s = interval_s * random.uniform(0.8, 1.2)
        if time.monotonic() + pause_s >= ends_s:
            return last
        threading.Event().wait(pause_s)


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--repair", action="store_true", help="repair by the policy, remember it, and alert")
    arguments.add_argument("--dry-run", action="store_true", help="with --repair: say what would be done")
    arguments.add_argument(
        "--watch", nargs="?", type=float, const=math.inf, metavar="SECONDS", help="look again and again, or for so long"
    )
    arguments.add_argument("--json", action="store_true", help="one line of JSON a look")
    options = arguments.parse_args()
    if options.dry_run and not options.repair:
        raise UsageError("--dry-run: belongs to --repair; without it nothing is done anyway")
    return options


def command() -> None:
    """Look once or for a while, and print what was found."""
    options = _arguments()
    it = opened(options)
    settings = it.settings
    shape = report.as_json if options.json else report.table

    def say(one: Report) -> None:
        print(shape(one, settings.alerts.runbook), flush=True)

    gatherer = Gatherer(settings, it.cluster, it.objects, it.sealing)
    seconds, interval_s = options.watch or 0.0, settings.health.interval_s
    if not options.repair:
        last = _watch(_looker(it, gatherer), say, interval_s, seconds)
    elif options.dry_run:
        checker = _checker(it, gatherer, dry_run=True)
        last = _watch(lambda: checker.round(lambda: None), say, interval_s, seconds)
    else:
        checker = _checker(it, gatherer, dry_run=False)
        with held(it.cluster, settings.cluster.namespace, LEASE, settings.cluster.lease_s) as lease:

            def work() -> Report:
                lease.check()
                one = checker.round(lease.check)
                _publish(it, one)
                return one

            last = _watch(work, say, interval_s, seconds)
    if options.watch is None:
        sys.exit(report.exit_code(last))


if __name__ == "__main__":
    main(command)
