"""Backup and restore at size, and the full matrices of which the tests take samples.

    python -m tests.bench.backup [scale] [mutations] [crashes]

Real kube-apiserver and etcd ($KUBEBUILDER_ASSETS), PostgreSQL, and moto's S3 server in a process of its own. The
figures are printed as JSON lines, which `make bench ARGS=backup` puts into its table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/ops"))

import apiserver  # noqa: E402
import boto3  # noqa: E402
import crashes as points  # noqa: E402
import mutations as damages  # noqa: E402
import postgres  # noqa: E402
import proxy  # noqa: E402
import psutil  # noqa: E402
import rayapi  # noqa: E402
import urllib3  # noqa: E402
from platform_under_test import Platform  # noqa: E402
from rayapi import Namespace  # noqa: E402

OBJECTS, JOBS, CLUSTERS = 10_000, 500, 250
DATABASE_BYTES = 2**30
ROWS_AT_ONCE = 500_000
CHANGED = 0.01


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: str
    bar: str
    met: bool


@dataclass(frozen=True)
class Services:
    """What runs beside the code that is measured."""

    kube: apiserver.Kube
    database: postgres.Server
    folder: Path
    s3: str


def scale(services: Services) -> Iterator[Figure]:
    """10,000 objects and a database of 1 GB: backup, a second one after a change of 1 %, restore."""
    namespace = Namespace(services.kube, "haetsal")
    _fill_namespace(namespace)
    url = services.database.create("mlflow")
    size = _fill_database(services.database)
    options = {"cluster.namespace": "haetsal", "store.root": _bucket("scale"), "mlflow.database": url}
    first_s, first_cpu_s, first_peak, first = _measure("backup", options)
    yield Figure(
        f"backup of {OBJECTS:,} objects and {size / 2**30:.2f} GiB", f"{first_s:.0f} s", "≤ 180 s", first_s <= 180
    )
    yield Figure("backup: peak memory", f"{first_peak:.0f} MB", "≤ 300 MB", first_peak <= 300)
    _change(namespace, services.database)
    second_s, second_cpu_s, _, second = _measure("backup", options)
    shares = _sent_bytes(second) / _sent_bytes(first), second_s / first_s
    sent = f"{shares[0]:.1%} ({_sent_bytes(second):,} of {_sent_bytes(first):,})"
    yield Figure("second backup, 1 % changed: bytes sent", sent, "≤ 10 %", shares[0] <= 0.1)
    taken = f"{shares[1]:.0%} ({second_s:.0f} s); of the CPU time of all programs {second_cpu_s / first_cpu_s:.0%}"
    yield Figure("second backup, 1 % changed: time", taken, "≤ 25 %", shares[1] <= 0.25)
    Namespace(services.kube, "elsewhere")
    target = {"cluster.namespace": "elsewhere", "mlflow.database": services.database.create("restored")}
    restore_s, _, restore_peak, said = _measure("restore", options | target)
    assert re.search(rf"plan: {OBJECTS} create", said), said
    count = "SELECT count(*), sum(step) FROM metrics"
    assert services.database.ask(count, "restored") == services.database.ask(count, "mlflow")
    yield Figure("restore of the same", f"{restore_s:.0f} s", "≤ 600 s", restore_s <= 600)
    yield Figure("restore: peak memory", f"{restore_peak:.0f} MB", "≤ 300 MB", restore_peak <= 300)


def mutations(services: Services) -> Iterator[Figure]:
    """Every mutation of a small backup; a write would be seen by the proxy before the API server."""
    from ops.backup.sealing import make_keys

    folder = services.folder / "mutations"
    folder.mkdir()
    with proxy.before(services.kube.url) as it:
        os.environ["KUBECONFIG"] = str(services.kube.kubeconfig(folder / "kubeconfig", it.url))
        make_keys(folder / "keys")
        platform = Platform.make(services.kube, "mutated", str(folder / "store"), folder)
        platform = platform.with_(
            keys__signing=folder / "keys/signing.pem", keys__verifying=folder / "keys/verifying.pem"
        )
        older = platform.run("backup").backup_id
        platform.namespace.patch("ConfigMap", "gateway", {"data": {"later": "yes"}})
        newer = platform.run("backup").backup_id
        it.reset()
        store = folder / "store"
        accepted, count = [], 0
        for mutation in damages.mutations(store, newer, older):
            copy = damages.damaged(store, folder / "damaged", mutation)
            done = platform.with_(store__root=copy).run("restore", "--backup", newer)
            count += 1
            if done.code not in (2, 5) or it.changes:
                accepted.append(mutation.name)
                it.reset()
    value = f"{count - len(accepted)} of {count}" + (f"; accepted: {accepted[:3]}" if accepted else "")
    yield Figure("damaged backups refused before the first write", value, "all of ≥ 500", not accepted and count >= 500)


def crashes(services: Services) -> Iterator[Figure]:
    """Kill -9 before and after every change that a backup and a restore make."""
    folder = services.folder / "crashes"
    folder.mkdir()
    with proxy.before(services.kube.url) as api, proxy.before(services.s3) as s3:
        os.environ["KUBECONFIG"] = str(services.kube.kubeconfig(folder / "kubeconfig", api.url))
        os.environ["AWS_ENDPOINT_URL"] = s3.url
        platform = Platform.make(services.kube, "crashed", _bucket("crashes"), folder).with_(store__reuse_days=1e-9)
        api.reset()
        s3.reset()
        platform.run("backup")
        every = points.points(s3, api)
        broken, killed = [], 0
        for number, point in enumerate(every):
            platform.namespace.patch("ConfigMap", "gateway", {"data": {"changed": str(number)}})
            killed += points.kill_at(platform, point, "backup")
            after_kill = list(points.broken_backups(platform))
            done = platform.run("backup")
            if after_kill or done.code != 0 or list(points.broken_backups(platform)):
                broken.append(f"{point.name}: {after_kill or done.err}")
        value = f"{len(broken)} of {killed} kills" + (f"; {broken[:2]}" if broken else "")
        yield Figure("backup killed: store lists a broken one", value, "0", not broken and killed == len(every))
        platform.run("backup")
        with platform.operator():
            platform.namespace.clear()
            api.reset()
            platform.run("restore")
            wanted = sorted(platform.versions())
            every = points.points(api)
            stuck, killed = [], 0
            for point in every:
                platform.namespace.clear()
                killed += points.kill_at(platform, point, "restore")
                done = platform.run("restore")
                if done.code != 0 or sorted(platform.versions()) != wanted:
                    stuck.append(f"{point.name}: {done.err}")
        value = f"{len(stuck)} of {killed} kills" + (f"; {stuck[:2]}" if stuck else "")
        yield Figure("restore killed: no way on", value, "0", not stuck and killed == len(every))


def _fill_namespace(namespace: Namespace) -> None:
    pod = {"template": {"spec": {"containers": [{"name": "ray", "image": "ray:2.60.0", "args": ["x" * 400]}]}}}
    cluster = {"rayVersion": "2.60.0", "suspend": True, "headGroupSpec": pod, "workerGroupSpecs": [pod]}
    job = {"entrypoint": "python -m jobs.train", "rayClusterSpec": cluster, "shutdownAfterJobFinishes": True}

    def add(number: int) -> None:
        if number < JOBS:
            namespace.add("RayJob", f"train-{number}", job | {"backoffLimit": number})
        elif number < JOBS + CLUSTERS:
            namespace.add("RayCluster", f"cluster-{number}", cluster | {"rayVersion": f"2.60.{number}"})
        else:
            namespace.add(
                "ConfigMap", f"run-{number}", data={"config.yaml": f"seed: {number}\n" + "key: value\n" * 100}
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(OBJECTS)))


def _fill_database(server: postgres.Server) -> int:
    """Metrics of runs as MLflow writes them, until the database has its size; returns its bytes."""
    server.ask(postgres.MLFLOW_TABLES + postgres.MLFLOW_ROWS, "mlflow")
    first = 2
    while (size := int(server.ask("SELECT pg_database_size('mlflow')")[0])) < DATABASE_BYTES:
        _add_rows(server, first, ROWS_AT_ONCE)
        first += ROWS_AT_ONCE
    return size


def _add_rows(server: postgres.Server, first: int, count: int) -> None:
    """One run has 1,000 points of each of 5 metrics."""
    server.ask(
        f"""INSERT INTO runs SELECT md5(n::text), 'train-' || n, 1
            FROM generate_series({first // 5000}, {(first + count - 1) // 5000}) n ON CONFLICT DO NOTHING;
        INSERT INTO metrics SELECT
            (ARRAY['loss', 'eval_loss', 'learning_rate', 'grad_norm', 'tokens_per_s'])[n % 5 + 1], random(),
            1764000000000 + n, md5((n / 5000)::text), n % 5000 / 5, false
            FROM generate_series({first}, {first + count - 1}) n""",
        "mlflow",
    )


def _change(namespace: Namespace, server: postgres.Server) -> None:
    """1 % of the objects, and 1 % of the rows: nine tenths of them new, one tenth the values of a few runs changed."""
    for number in range(JOBS + CLUSTERS, JOBS + CLUSTERS + int(OBJECTS * CHANGED)):
        namespace.patch("ConfigMap", f"run-{number}", {"data": {"changed": "yes"}})
    rows = int(server.ask("SELECT count(*) FROM metrics", "mlflow")[0])
    _add_rows(server, 100_000_000, int(rows * CHANGED * 0.9))
    runs = max(1, int(rows * CHANGED * 0.1 / 5000))
    server.ask(
        f"""UPDATE metrics SET value = value + 1
        WHERE run_uuid IN (SELECT md5(n::text) FROM generate_series(10, {10 + runs - 1}) n)""",
        "mlflow",
    )


def _measure(command: str, settings: dict[str, object]) -> tuple[float, float, float, str]:
    """Run a command as a user does: (seconds, CPU seconds of it and of all services, peak memory in MB, its output).

    The peak is the largest resident set of the command or of a program that it ran. CPU time is given beside the
    seconds because other work on the machine lengthens these and not that.
    """
    pairs = " ".join(f"{key}={value}" for key, value in settings.items())
    begun, services_s = time.monotonic(), _services_cpu_s()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", f"ops.{command}", "--set", pairs], cwd=ROOT, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        out.seek(0)
        said = out.read()
    own_s = usage.ru_utime + usage.ru_stime
    all_s = own_s + _services_cpu_s() - services_s
    print(f"{command}: {seconds:.1f} s, CPU {own_s:.1f} s, with services {all_s:.1f} s\n{said[-300:]}", file=sys.stderr)
    return seconds, all_s, usage.ru_maxrss / 1024, said


def _services_cpu_s() -> float:
    """CPU time of the services and of what they have waited for (PostgreSQL has a process for each connection)."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(part.user + part.system + part.children_user + part.children_system for part in times)


def _sent_bytes(said: str) -> int:
    found = re.search(r"sent \d+, ([\d,]+) bytes", said)
    assert found, said
    return int(found[1].replace(",", ""))


def _bucket(name: str) -> str:
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/haetsal"


@contextmanager
def _services() -> Iterator[Services]:
    if apiserver.find_programs() is None or postgres.find_programs() is None:
        sys.exit("needs kube-apiserver and etcd ($KUBEBUILDER_ASSETS or PATH) and PostgreSQL's server")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haetsal-bench-")))
        kube = stack.enter_context(apiserver.serve(folder))
        rayapi.install(kube, *(rayapi.crd(kind, spec) for kind, spec in rayapi.SPECS.items()))
        os.environ["KUBECONFIG"] = str(kube.kubeconfig(folder / "kubeconfig"))
        port = apiserver.free_port()
        s3 = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host=127.0.0.1", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(s3.wait)
        stack.callback(s3.kill)
        address = f"http://127.0.0.1:{port}"
        urllib3.request("GET", address, retries=urllib3.Retry(connect=100, backoff_factor=0.1, backoff_max=0.5))
        os.environ |= {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield Services(kube, stack.enter_context(postgres.serve()), folder, address)


def main() -> None:
    """Measure what is named, all without a name. Exit code 1 if a bar is missed."""
    known = {bench.__name__: bench for bench in (scale, mutations, crashes)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *known], help="default: all")
    chosen = parser.parse_args().names or list(known)
    met = True
    with _services() as services:
        for name in chosen:
            for figure in known[name](services):
                met &= figure.met
                print(json.dumps(vars(figure), ensure_ascii=False), flush=True)
    sys.exit(not met)


if __name__ == "__main__":
    main()
