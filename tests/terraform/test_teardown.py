"""make destroy: order, waiting, what is spared, and what is found afterwards."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import boto3
import pytest

from jobs.errors import RemoteError, UsageError
from ops import teardown
from ops.buckets import empty_bucket
from ops.cluster_teardown import ClusterTeardown
from ops.leftovers import Leftover, find_leftovers
from terraform.settings import DATA_BUCKETS
from terraform.tool import find_tool
from terraform.versions import ROOT
from tests.terraform import kube_api
from tests.terraform.standin import stand_in

needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not on PATH")
needs_tool = pytest.mark.skipif(
    not (shutil.which("terraform") or shutil.which("tofu")), reason="neither terraform nor tofu is on PATH"
)


@pytest.fixture
def api(kubeconfig, tmp_path, monkeypatch):
    """A cluster with everything in it that makes cloud resources outside of Terraform."""
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl caches discovery there
    with kube_api.serve() as server:
        for kind in ("rayjobs", "rayservices", "rayclusters"):
            server.add("customresourcedefinitions", f"{kind}.ray.io")
            server.add(kind, f"{kind}-one", "haetsal")
        server.add("rayjobs", "rayjobs-two", "elsewhere")
        server.add("ingresses", "page", "haetsal")
        server.add("services", "public", "haetsal", type="LoadBalancer")
        server.add("services", "internal", "haetsal", type="ClusterIP")
        server.add("persistentvolumeclaims", "prometheus", "monitoring", held=True)
        server.add("persistentvolumes", "pvc-1", held=True)
        kubeconfig(lab=server.url)
        yield server


def before(log: list[str], *steps: str) -> None:
    """Each of `steps` is in the log, in this order."""
    places = [log.index(step) for step in steps]
    assert all(a < b for a, b in pairwise(places)), log


# --- the cluster ----------------------------------------------------------------------------------------------------


@needs_kubectl
def test_cluster_is_emptied_in_order_and_each_step_waits(api):
    cluster = ClusterTeardown("lab", timeout_s=20)
    cluster.delete_ray()
    cluster.delete_load_balancers()
    cluster.request_volume_deletion()
    before(
        api.log,
        "delete rayjobs/rayjobs-one",
        "gone rayjobs/rayjobs-one",
        "delete rayservices/rayservices-one",
        "gone rayservices/rayservices-one",
        "delete rayclusters/rayclusters-one",
        "gone rayclusters/rayclusters-one",
        "delete ingresses/page",
        "gone ingresses/page",
        "delete services/public",
        "gone services/public",
        "delete persistentvolumeclaims/prometheus",
    )
    assert "gone rayjobs/rayjobs-two" in api.log
    assert not any("internal" in line for line in api.log)
    assert "gone persistentvolumeclaims/prometheus" not in api.log  # Prometheus still runs


@needs_kubectl
def test_a_cluster_without_ray_or_load_balancers_is_fine(api):
    api.objects.clear()
    cluster = ClusterTeardown("lab", timeout_s=20)
    for step in (cluster.delete_ray, cluster.delete_load_balancers, cluster.request_volume_deletion):
        step()
    cluster.wait_for_volumes()
    assert api.log == []


@needs_kubectl
def test_an_object_that_does_not_go_is_named_with_where_to_look(api):
    api.add("rayjobs", "stuck", "haetsal", held=True)
    with pytest.raises(RemoteError, match=r"kubectl delete rayjobs\.ray\.io: .*timed out.*; a finalizer holds it: see"):
        ClusterTeardown("lab", timeout_s=1).delete_ray()
    assert "delete rayjobs/stuck" in api.log and "gone rayjobs/stuck" not in api.log
    assert "delete rayservices/rayservices-one" not in api.log


# --- the whole order, with the real terraform and kubectl -----------------------------------------------------------


@pytest.fixture
def applied(api, lab, stacks, versions, state, tmp_path):
    """The lab's three stacks, applied by the real binary; each tells the API server's log when it is destroyed."""
    tool = find_tool(versions.terraform)
    for name in ("storage", "platform", "addons"):
        folder = stand_in(tmp_path, stacks["lab", name], post=f"{api.url}/log/destroyed%20{name}")
        tool.init(folder)
        tool.run(folder, "apply", "-auto-approve")
    return tool, tmp_path


@needs_tool
@needs_kubectl
def test_everything_goes_in_order_and_storage_stays(applied, api, lab, lab_session):
    tool, out = applied
    make_buckets(lab, lab_session)
    left = teardown.teardown(lab, lab_session, tool, out, False, ClusterTeardown("lab", timeout_s=20))
    before(
        api.log,
        "gone rayclusters/rayclusters-one",
        "gone services/public",
        "delete persistentvolumeclaims/prometheus",
        "destroyed addons",
        "gone persistentvolumes/pvc-1",
        "destroyed platform",
    )
    assert "destroyed storage" not in api.log
    assert {leftover.name for leftover in left if not leftover.kept} == set()
    assert {leftover.name for leftover in left} == {lab.bucket_name(p) for p in (*DATA_BUCKETS, "state")}
    # A second run has nothing to do, and says so, without a cluster to ask.
    log = list(api.log)
    assert teardown.teardown(lab, lab_session, tool, out, False, None) == left
    assert api.log == log


@needs_tool
@needs_kubectl
def test_data_goes_last_and_only_when_it_was_named(applied, api, lab, lab_session):
    tool, out = applied
    make_buckets(lab, lab_session)
    s3 = lab_session.client("s3")
    s3.put_object(Bucket=lab.bucket_name("data"), Key="raw/a", Body=b"1")
    left = teardown.teardown(lab, lab_session, tool, out, True, None)
    assert api.log == ["destroyed platform", "destroyed storage"]
    assert "Versions" not in s3.list_object_versions(Bucket=lab.bucket_name("data"))
    # The stand-in stack deletes no bucket, so the list must find them: now they are left, not spared.
    assert {leftover.name for leftover in left if not leftover.kept} == {lab.bucket_name(p) for p in DATA_BUCKETS}


def make_buckets(environment, session: boto3.Session) -> None:
    for purpose in DATA_BUCKETS:
        session.client("s3").create_bucket(
            Bucket=environment.bucket_name(purpose),
            CreateBucketConfiguration={"LocationConstraint": environment.region},
        )
        session.client("s3").put_bucket_versioning(
            Bucket=environment.bucket_name(purpose), VersioningConfiguration={"Status": "Enabled"}
        )


# --- asking first ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confirmation", "delete_data", "expected"),
    [
        (None, None, "not confirmed; give CONFIRM=lab"),
        ("dev", None, "not confirmed; give CONFIRM=lab"),
        ("lab", "yes", "to delete the buckets write DELETE_DATA=yes-lab"),
        ("lab", "yes-dev", "to delete the buckets write DELETE_DATA=yes-lab"),
    ],
)
def test_not_confirmed(confirmation, delete_data, expected, environments):
    with pytest.raises(UsageError, match=expected):
        teardown.confirm(environments["lab"], confirmation, delete_data)


def test_confirmed(environments):
    assert teardown.confirm(environments["lab"], "lab", None) is False
    assert teardown.confirm(environments["lab"], "lab", "yes-lab") is True


def test_a_protected_environment_is_refused(environments):
    with pytest.raises(UsageError, match="prod is protected; set deletion_protection: false"):
        teardown.confirm(environments["prod"], "prod", None)


def test_the_command_touches_nothing_unless_confirmed(aws):
    command = [sys.executable, "-m", "ops.teardown", "--env", "dev"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: not confirmed; give CONFIRM=dev to destroy dev\n"


# --- what is left ---------------------------------------------------------------------------------------------------


def tags(environment, **more: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in (environment.tags | more).items()]


@pytest.fixture
def litter(lab, lab_session) -> dict[str, set[str]]:
    """One of each kind that is ours, by each way of telling, and one of each that is not."""
    ec2, zone = lab_session.client("ec2"), lab.zones[0]
    subnets = [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"]][:2]

    def volume(*pairs: dict[str, str]) -> str:
        spec = [{"ResourceType": "volume", "Tags": list(pairs)}] if pairs else []
        return ec2.create_volume(AvailabilityZone=zone, Size=1, TagSpecifications=spec)["VolumeId"]

    def interface(*pairs: dict[str, str]) -> str:
        spec = [{"ResourceType": "network-interface", "Tags": list(pairs)}]
        answer = ec2.create_network_interface(SubnetId=subnets[0], TagSpecifications=spec)
        return answer["NetworkInterface"]["NetworkInterfaceId"]

    owned = {"Key": "kubernetes.io/cluster/hs-lab", "Value": "owned"}
    other = {"Key": "kubernetes.io/cluster/other", "Value": "owned"}
    volumes = {volume(*tags(lab)), volume(owned)}
    volume(other)
    volume()
    volume({"Key": "Environment", "Value": "lab"}, {"Key": "Project", "Value": "another"})
    interfaces = {interface({"Key": "cluster.k8s.amazonaws.com/name", "Value": "hs-lab"})}
    interface(other)
    elbv2, elb = lab_session.client("elbv2"), lab_session.client("elb")
    controller = {"Key": "elbv2.k8s.aws/cluster", "Value": "hs-lab"}
    made = elbv2.create_load_balancer(Name="ours", Subnets=subnets, Tags=[controller])["LoadBalancers"]
    for number in range(25):  # more than one page of tags
        elbv2.create_load_balancer(Name=f"other-{number}", Subnets=subnets, Tags=[other])
    listener = [{"Protocol": "tcp", "LoadBalancerPort": 80, "InstancePort": 80}]
    elb.create_load_balancer(LoadBalancerName="classic", Listeners=listener, AvailabilityZones=[zone], Tags=[owned])
    logs = lab_session.client("logs")
    for name in ("/aws/eks/hs-lab/cluster", "/aws/rds/instance/hs-lab-mlflow/postgresql", "/aws/eks/hs-lab2/cluster"):
        logs.create_log_group(logGroupName=name)
    return {
        "volume": volumes,
        "network interface": interfaces,
        "load balancer": {made[0]["LoadBalancerArn"], "classic"},
        "log group": {"/aws/eks/hs-lab/cluster", "/aws/rds/instance/hs-lab-mlflow/postgresql"},
    }


def test_leftovers_are_ours_all_of_them_and_no_others(litter, lab, lab_session):
    found: dict[str, set[str]] = {}
    for leftover in find_leftovers(lab, lab_session, data_deleted=False):
        assert not leftover.kept
        found.setdefault(leftover.kind, set()).add(leftover.name)
    assert found == litter


def test_buckets_and_final_snapshots_are_kept_with_a_reason(lab, lab_session):
    make_buckets(lab, lab_session)
    rds = lab_session.client("rds")
    for name in ("hs-lab-mlflow", "another"):
        rds.create_db_instance(
            DBInstanceIdentifier=name, Engine="postgres", DBInstanceClass="db.t4g.medium", AllocatedStorage=20
        )
        rds.create_db_snapshot(DBInstanceIdentifier=name, DBSnapshotIdentifier=f"{name}-final-20261122")
    left = {leftover.name: leftover.kept for leftover in find_leftovers(lab, lab_session, data_deleted=False)}
    assert left.pop("hs-lab-mlflow-final-20261122") == "MLflow's last state"
    assert set(left) == {lab.bucket_name(purpose) for purpose in DATA_BUCKETS}
    assert set(left.values()) == {"data is spared without DELETE_DATA=yes-lab"}


def test_the_report_fails_only_for_what_should_not_be_there(capsys):
    kept = Leftover("bucket", "b", "holds state")
    teardown.report([kept])
    assert capsys.readouterr().out == ("kept  bucket             b  holds state\nnothing is left that should not be\n")
    with pytest.raises(RemoteError, match="2 things are left and may cost money"):
        teardown.report([kept, Leftover("volume", "vol-1"), Leftover("volume", "vol-2")])
    assert "LEFT  volume             vol-1\n" in capsys.readouterr().out


# --- emptying buckets -----------------------------------------------------------------------------------------------


def test_every_version_and_marker_is_deleted_over_many_pages(lab, lab_session, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "20")
    make_buckets(lab, lab_session)
    s3, name = lab_session.client("s3"), lab.bucket_name("data")
    for number in range(95):
        s3.put_object(Bucket=name, Key=f"raw/{number}", Body=b"")
    assert s3.list_object_versions(Bucket=name)["IsTruncated"]
    s3.put_object(Bucket=name, Key="raw/0", Body=b"again")
    s3.delete_object(Bucket=name, Key="raw/1")
    assert empty_bucket(lab_session, name) == 97
    s3.delete_bucket(Bucket=name)  # S3 itself refuses unless it is empty
    assert empty_bucket(lab_session, name) == 0


@pytest.mark.parametrize(("mode", "held"), [("GOVERNANCE", False), ("COMPLIANCE", True)])
def test_governance_is_bypassed_and_compliance_is_reported(mode, held, lab, lab_session):
    s3, name = lab_session.client("s3"), lab.bucket_name("backups")
    s3.create_bucket(
        Bucket=name, ObjectLockEnabledForBucket=True, CreateBucketConfiguration={"LocationConstraint": lab.region}
    )
    until = datetime.now(UTC) + timedelta(days=1)
    s3.put_object(Bucket=name, Key="locked", Body=b"1", ObjectLockMode=mode, ObjectLockRetainUntilDate=until)
    s3.put_object(Bucket=name, Key="free", Body=b"1")
    if held:
        with pytest.raises(RemoteError, match="1 versions deleted, 1 are held by a lock, first locked"):
            empty_bucket(lab_session, name)
        assert [v["Key"] for v in s3.list_object_versions(Bucket=name)["Versions"]] == ["locked"]
    else:
        assert empty_bucket(lab_session, name) == 2
