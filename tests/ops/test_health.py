"""The checker on a real API server and real HTTP servers: faults it repairs, faults it tells, faults of its own."""

from __future__ import annotations

import datetime
import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import apiserver
import boto3
import listener
import proxy
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from faults import FAULTS
from listener import Resets
from living import Living, audit_of, now, rounds
from platform_under_test import point_at, run, start
from proxy import Kill, Proxy, Request, s3_error
from rights import Right, granted, needed

from jobs.errors import EnvironmentNotReady
from ops.alerts.channels import Slack, Webhook
from ops.health.__main__ import LEASE
from ops.health.rounds import Report
from ops.kube import Cluster
from ops.lease import held
from ops.recovery.history import UNKNOWN
from ops.settings import OpsSettings

REPAIRED = [name for name, fault in FAULTS.items() if fault.steps]


@pytest.fixture(scope="module")
def between(kube: apiserver.Kube) -> Iterator[Proxy]:
    """A proxy before the API server; the checker goes through it, the platform does not."""
    with proxy.before(kube.url) as it:
        yield it


@pytest.fixture(scope="module")
def alive(kube: apiserver.Kube, between: Proxy, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """One platform for all tests: each leaves it healthy."""
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        point_at(s3, environment)
        kubeconfig = kube.kubeconfig(tmp_path_factory.mktemp("health") / "kubeconfig", between.url)
        environment.setenv("KUBECONFIG", str(kubeconfig))
        boto3.client("s3").create_bucket(Bucket="health")
        it = stack.enter_context(Living(kube, "health", "s3://health/haetsal", stack).alive())
        it.back_up()
        yield it


@pytest.fixture
def living(alive: Living, between: Proxy) -> Iterator[Living]:
    """That platform, with a checker that remembers nothing. Whatever it asks for, its service account may."""
    alive.forget()
    needs: set[Right | None] = set()
    between.reset(lambda request: needs.add(needed(request)))
    yield alive
    beyond = {right for right in needs if right and not granted("health-checker", right)}
    assert not beyond, f"charts/haetsal/rbac.yaml does not grant {beyond}"


@pytest.mark.parametrize("name", REPAIRED)
def test_fault_that_is_repaired(living: Living, name: str) -> None:
    """From a healthy platform: found, repaired by the smallest step that helps, audited, told."""
    fault, settings = FAULTS[name], living.settings()
    with listener.listen() as hook:
        checker = living.checker(settings, [Webhook(hook.url, 1)])
        assert checker.round(lambda: None).findings == []
        fault.inject(living)
        found = rounds(checker, lambda report: fault.finding in ids(report))
        found += rounds(checker, lambda report: not report.findings)
    made = [one.repair.step for report in found for one in report.decisions if one.repair]
    assert made == list(fault.steps)
    log = audit_of(living, settings)
    assert [row["event"] for row in log] == ["decided", "ended"] * len(fault.steps) + ["healed"]
    assert [row["what"].startswith(step) for row, step in zip(log[::2], fault.steps, strict=False)] == [True] * len(
        made
    )
    assert {row["finding"] for row in log} >= {fault.finding}
    assert f"{fault.steps[0]} " in hook.asked[0].json["alerts"][0]["tried"]


def test_faults_that_are_told(living: Living) -> None:
    """All at once: each is told with its line of the runbook, and nothing is done."""
    told_only = {name: fault for name, fault in FAULTS.items() if not fault.steps}
    settings = living.settings()
    with listener.listen() as hook:
        checker = living.checker(settings, [Webhook(hook.url, 1)])
        assert checker.round(lambda: None).findings == []
        for fault in told_only.values():
            fault.inject(living)
        wanted = {fault.finding for fault in told_only.values()}
        told: set[str] = set()
        for report in rounds(checker, lambda report: wanted <= ids(report) and len(hook.asked) > 0):
            assert report.outcomes == {}
        for asked in hook.asked:
            for alert in asked.json["alerts"]:
                assert alert["runbook"].endswith(f"#{alert['finding']}")
                told.add(alert["finding"])
    assert told == wanted
    assert audit_of(living, settings) == []
    living.heal()
    rounds(checker, lambda report: not report.findings)


def ids(report: Report) -> set[str]:
    return {one.id for one in report.findings}


def test_a_dead_channel_does_not_stop_recovery(living: Living) -> None:
    """The other channel is told, of the dead one too."""
    with listener.listen() as dead, listener.listen() as good:
        dead.otherwise = Resets()
        checker = living.checker(living.settings(), [Slack(f"{dead.url}/dead", 1), Webhook(good.url, 1)])
        FAULTS["worker keeps ending"].inject(living)
        reports = rounds(checker, lambda report: "worker-down" in ids(report))
        reports += rounds(checker, lambda report: "worker-down" not in ids(report))
        assert dead.hurt, "the dead channel was tried"
        assert any("channel-down" in ids(report) for report in reports)
        assert any("worker-down" in str(asked.json) for asked in good.asked)


def test_without_s3_it_is_repaired_and_audited_later(living: Living, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 503 to everything: that is a finding, and what needs no backup is repaired all the same."""
    with proxy.before(s3) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        settings = living.settings(store__attempts=1)
        checker = living.checker(settings)
        store.reset(lambda request: s3_error(503, "ServiceUnavailable"))
        FAULTS["worker keeps ending"].inject(living)
        rounds(checker, lambda report: {"worker-down", "store-down"} <= ids(report))
        rounds(checker, lambda report: "worker-down" not in ids(report))
        assert store.happened, "S3 was down"
        store.reset()
        rounds(checker, lambda report: not report.findings)
        assert [row["event"] for row in audit_of(living, settings)] == ["decided", "ended", "healed"]


def test_a_certificate_near_its_end(living: Living, tmp_path: Path) -> None:
    with tls_server(tmp_path, days=3) as place:
        report = living.checker(living.settings(health__certificates=[place])).round(lambda: None)
    (finding,) = report.findings
    assert (finding.id, finding.sentence) == ("certificate-ending", f"the certificate of {place} ends in 3 days")


def test_killed_in_a_repair(living: Living, between: Proxy) -> None:
    """The next checker knows that a repair was begun, says that its outcome is unknown, and waits its time."""
    settings, pid = living.settings(), [0]
    FAULTS["worker keeps ending"].inject(living)
    between.reset(lambda request: Kill(lambda: pid[0], after=False) if deletes_a_pod(request) and pid[0] else None)
    process = start(command_line(settings, "--repair", "--watch", "60"))
    pid[0] = process.pid or 0
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(between.happened) == 1, "it was killed in its first repair"
    between.reset()
    checker = living.checker(settings)
    reports = rounds(checker, lambda report: not report.findings)
    assert all(not report.outcomes for report in reports[:2]), "not again at once"
    said = [row["said"] for row in audit_of(living, settings) if row["event"] == "ended"]
    assert said[0] == UNKNOWN
    assert len(said) == 2, "one more repair helped"


def test_two_checkers(living: Living) -> None:
    """Only one that holds the Lease repairs; the other ends with a sentence."""
    settings = living.settings()
    with held(Cluster(settings.cluster), living.namespace.name, LEASE, settings.cluster.lease_s):
        done = run(command_line(settings, "--repair"))
    assert done.code == EnvironmentNotReady.exit_code
    assert LEASE in done.error


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(living: Living, between: Proxy) -> None:
    settings = living.settings(recovery__confirm_s=0)
    FAULTS["worker keeps ending"].inject(living)
    between.reset()
    done = run(command_line(settings, "--repair", "--dry-run"))
    assert between.changes == []
    assert done.code == 10, "warnings only"
    assert "(attempt 1 of 3): would be done" in done.out
    rounds(living.checker(settings), lambda report: not report.findings)


def test_a_look_by_hand(living: Living) -> None:
    """Table and JSON agree; the exit code says how bad it is."""
    settings = living.settings()
    done = run(command_line(settings))
    assert (done.code, done.out.splitlines()[-1].endswith("healthy")) == (0, True)
    FAULTS["MLflow answers 500"].inject(living)
    done = run(command_line(settings))
    assert done.code == 11
    assert "tracking-down" in done.out and "ops/RUNBOOK.md#tracking-down" in done.out
    (row,) = json.loads(run(command_line(settings, "--json")).out)["findings"]
    assert row["id"] == "tracking-down"
    living.heal()


def test_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = run(["health"])
    assert done.code == EnvironmentNotReady.exit_code
    assert done.error.endswith("No configuration found; set KUBECONFIG or cluster.context")


def command_line(settings: OpsSettings, *arguments: str) -> list[str]:
    """`python -m ops.health` with these settings."""
    tree = settings.model_dump(mode="json", exclude_unset=True)
    pairs = [f"{section}.{key}={json.dumps(value)}" for section, rows in tree.items() for key, value in rows.items()]
    return ["health", "--set", " ".join(pair.replace(", ", ",") for pair in pairs), *arguments]


def deletes_a_pod(request: Request) -> bool:
    return request.method == "DELETE" and "/pods/" in request.path


@contextmanager
def tls_server(folder: Path, days: int) -> Iterator[str]:
    """A TLS server on a port of its own whose certificate ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days, minutes=5))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    pem.write_bytes(private + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                try:
                    context.wrap_socket(listening.accept()[0], server_side=True).close()
                except OSError:  # nobody for a moment, or somebody who hung up
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


def test_a_run_that_has_ended_is_nobodys_concern(alive: Living) -> None:
    status = {"jobDeploymentStatus": "Failed", "startTime": now(hours=2)}
    alive.forget()
    alive.namespace.add("RayJob", "train-ended", {"entrypoint": "x"}, status=status)
    alive.add_failed_submitter("train-ended")
    try:
        assert alive.checker(alive.settings()).round(lambda: None).findings == []
    finally:
        alive.heal()
