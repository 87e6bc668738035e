"""Every fault that the checker knows, from fault to repaired or told; and a soak that counts what users would notice.

    python -m tests.bench.health [repairs] [soak]

A real API server where $KUBEBUILDER_ASSETS or PATH has one, moto's S3 server, real HTTP; kubelet, KubeRay and Ray are
played by tests/ops/living.py, which has a new pod ready at once. All times of the checker's policy are divided by
`--speed`, and what is printed is multiplied by it: seconds of a platform with the default settings.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/ops"))

import apiserver  # noqa: E402
import boto3  # noqa: E402
import listener  # noqa: E402
import rayapi  # noqa: E402
from faults import FAULTS, Fault  # noqa: E402
from living import Living  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

from ops.alerts.channels import Webhook  # noqa: E402
from ops.health.rounds import Checker, Report  # noqa: E402
from ops.health.settings import HealthSettings, RecoverySettings  # noqa: E402
from ops.settings import OpsSettings  # noqa: E402

SOAK_S, EVERY_S = 7200, 600
"""Two hours with a fault every ten minutes, in seconds of the platform."""
AVAILABILITY = 0.999
_POLICY = ("confirm_s", "recreate_after_s", "window_s", "backoff_max_s", "circuit_s", "calm_s", "flap_window_s")


def settings(living: Living, speed: float) -> OpsSettings:
    """The default policy, `speed` times as fast."""
    policy = RecoverySettings()
    quick = {f"recovery__{name}": getattr(policy, name) / speed for name in _POLICY}
    return living.settings(**quick, recovery__flaps=policy.flaps, health__interval_s=1)


def repairs(living: Living, speed: float) -> None:
    """One fault after the other, each from a healthy platform."""
    interval_s = HealthSettings().interval_s / speed
    print(f"{'fault':34} {'found':>7} {'told':>7} {'repaired':>9}  by")
    for name, fault in FAULTS.items():
        living.forget()
        with listener.listen() as hook:
            checker = living.checker(settings(living, speed), [Webhook(hook.url, 1)])
            assert checker.round(lambda: None).findings == [], name
            times, by = _watch(living, checker, fault, hook, interval_s)
            found, told, repaired = (f"{times[key] * speed:.0f} s" if key in times else "-" for key in _EVENTS)
            print(f"{name:34} {found:>7} {told:>7} {repaired:>9}  {by}", flush=True)
        if not fault.steps:
            living.heal()


_EVENTS = ("found", "told", "repaired")


def _watch(
    living: Living, checker: Checker, fault: Fault, hook: listener.Listener, interval_s: float
) -> tuple[dict[str, float], str]:
    """Seconds from the fault to each event, and the repairs. What has no repair ends with being told."""
    fault.inject(living)
    begun_s, times, made = time.monotonic(), dict[str, float](), list[str]()

    def mark(event: str) -> None:
        times.setdefault(event, time.monotonic() - begun_s)

    while ("repaired" if fault.steps else "told") not in times:
        assert time.monotonic() - begun_s < 600, f"{fault.finding} is neither repaired nor told"
        report = checker.round(lambda: None)
        made += [str(one.repair.step) for one in report.decisions if one.repair]
        if any(one.id == fault.finding for one in report.findings):
            mark("found")
        if any(fault.finding in str(asked.json) for asked in hook.asked):
            mark("told")
        if "found" in times and not report.findings:
            mark("repaired")
        time.sleep(interval_s)
    return times, ", then ".join(made) or "told only"


def soak(living: Living, speed: float) -> None:
    """A fault every ten minutes, all that have a repair in turn; a request every second of the platform."""
    interval_s = HealthSettings().interval_s / speed
    checker, stop = living.checker(settings(living, speed)), threading.Event()
    reports: list[Report] = []

    def repair() -> None:
        while not stop.wait(interval_s):
            reports.append(checker.round(lambda: None))

    asked, failed = 0, dict[str, int]()
    thread = threading.Thread(target=repair)
    thread.start()
    try:
        begun_s, turn = time.monotonic(), itertools.cycle((n, f) for n, f in FAULTS.items() if f.steps)
        now, next_s = "", 0.0
        while (at_s := (time.monotonic() - begun_s) * speed) < SOAK_S:
            if at_s >= next_s:
                now, fault = next(turn)
                fault.inject(living)
                next_s += EVERY_S
                print(f"{at_s:6.0f} s  {now}", file=sys.stderr, flush=True)
            asked += 1
            if not serves(living):
                failed[now] = failed.get(now, 0) + 1
            time.sleep(max(0.0, begun_s + asked / speed - time.monotonic()))
    finally:
        stop.set()
        thread.join()
    share = 1 - sum(failed.values()) / asked
    made = sum(bool(one.repair) for report in reports for one in report.decisions)
    print(f"\n{SOAK_S} s, a fault every {EVERY_S} s, {len(reports)} looks, {made} repairs, {asked} requests")
    for name, count in failed.items():
        print(f"  {count:4} failed after: {name}")
    bar = "met" if share >= AVAILABILITY else "missed"
    print(f"availability = 1 - {sum(failed.values())} / {asked} = {share:.3%} (bar {AVAILABILITY:.1%}: {bar})")


def serves(living: Living) -> bool:
    """Whether a request would be answered now: by a ready gateway pod, a ready worker, Serve and the application."""
    if not any(map(_is_ready, living.pods("gateway"))):
        return False
    if not any(map(_is_ready, living.pods("worker", "chat"))):
        return False
    application = living.chat.answers["/api/serve/applications/"].body["applications"]["chat"]  # type: ignore[union-attr]
    if application["status"] != "RUNNING":
        return False
    try:
        with urllib.request.urlopen(living.serve.url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _is_ready(pod: dict) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


@contextmanager
def _living() -> Iterator[Living]:
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as folder, ExitStack() as stack:
        kube = stack.enter_context(apiserver.serve(Path(folder)))
        rayapi.install(kube, *(rayapi.crd(kind, spec) for kind, spec in rayapi.SPECS.items()))
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        stack.callback(server.stop)
        host, port = server.get_host_and_port()
        secrets = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
        kubeconfig = {"KUBECONFIG": str(kube.kubeconfig(Path(folder) / "kubeconfig"))}
        os.environ |= secrets | kubeconfig | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        boto3.client("s3").create_bucket(Bucket="health")
        it = stack.enter_context(Living(kube, "health", "s3://health/haetsal", stack).alive())
        it.back_up()
        yield it


def main() -> None:
    """Command line entry; see the module's docstring."""
    parts: dict[str, Callable[[Living, float], None]] = {"repairs": repairs, "soak": soak}
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("parts", nargs="*", choices=[[], *parts])
    arguments.add_argument("--speed", type=float, default=20, help="how many times faster than the default policy")
    options = arguments.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto's server logs every request
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    for name in options.parts or parts:
        with _living() as living:
            parts[name](living, options.speed)


if __name__ == "__main__":
    main()
