"""make doctor against an AWS emulator: each check passes when it should, and fails with what to do."""

import os
import shutil
import subprocess
import sys

import boto3
import pytest
from moto.ec2.models import ec2_backends

from jobs.errors import EnvironmentNotReady
from ops.cloud_checks import (
    QUOTAS,
    Check,
    check_addons,
    check_buckets,
    check_caller,
    check_images,
    check_offerings,
    check_quotas,
    check_tools,
    check_zones,
    required_vcpus,
    run_checks,
)
from ops.doctor import render
from ops.kube_context import require_own_context
from terraform.bootstrap import bootstrap
from terraform.versions import ROOT
from tests.terraform import aws_stub
from tests.terraform.conftest import ACCOUNT

ENDPOINT = "https://ABC.gr7.ap-northeast-2.eks.amazonaws.com"


@pytest.fixture
def stub(aws, monkeypatch, versions):
    with aws_stub.serve() as answers:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EKS", answers.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", answers.url)
        answers.addons = {name: ["v9.9.9", version] for name, version in versions.eks.addons.items()}
        answers.quotas = dict.fromkeys(QUOTAS.values(), 10_000.0)
        yield answers


@pytest.fixture
def ready(session, dev, stub, kubeconfig, versions):
    """An account in which dev can be applied: state bucket and node images are there."""
    bootstrap(dev, session)
    day = versions.eks.ami_release.split("-")[1]
    for variant in ("standard", "nvidia"):
        name = f"amazon-eks-node-al2023-x86_64-{variant}-{versions.kubernetes}-v{day}"
        id_ = session.client("ec2").register_image(Name=name, RootDeviceName="/dev/xvda")["ImageId"]
        ec2_backends[ACCOUNT][dev.region].amis[id_].owner_alias = "amazon"  # EKS publishes them, not the account
    return stub


def assume(session: boto3.Session, role: str) -> boto3.Session:
    keys = session.client("sts").assume_role(RoleArn=role, RoleSessionName="someone")["Credentials"]
    return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], session.region_name)


TOOLS = ("terraform", "node", "aws", "kubectl", "helm")


def failed(checks) -> dict[str, tuple[str, str]]:
    return {check.name: (check.detail, check.fix) for check in checks if not check.passed}


def test_a_ready_account_passes(ready, dev, session, versions, prices):
    checks = run_checks(dev, versions, prices, session)
    # Which programs are here is the machine's affair, and moto's caller is nobody's admin.
    assert set(failed(checks)) <= {*TOOLS, "caller"}
    names = {check.name for check in checks}
    assert {"caller", "zones", "pool training", "quota spot g", "bucket data", "state bucket"} <= names
    assert {"node image nvidia", "add-on vpc-cni", "kube context", *TOOLS} <= names


def test_a_missing_tool_is_named_with_its_purpose(versions, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(shutil.which("kubectl"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    checks = {check.name: check for check in check_tools(versions)}
    assert checks["kubectl"].passed
    assert checks["helm"].fix == "install helm: it reads the charts' CRDs"
    assert "terraform or tofu is not on PATH" in checks["terraform"].fix


def test_a_caller_who_is_no_admin_is_told_to_become_one(dev, session):
    assert "add this role or user to cluster.admins" in check_caller(dev, session).fix


def test_an_admin_caller_passes(dev, session):
    caller = check_caller(dev, assume(session, f"arn:aws:iam::{ACCOUNT}:role/haetsal-admin"))
    assert caller.passed and "assumed-role/haetsal-admin/someone" in caller.detail


def test_other_credentials_stop_the_checks_that_need_them(environments, session, versions, prices):
    checks = run_checks(environments["dev"], versions, prices, session)
    assert {check.name for check in checks} == {*TOOLS, "caller"}
    assert f'write account_id: "{ACCOUNT}"' in checks[-1].fix


def test_no_gpu_quota_says_how_to_ask_for_it(stub, dev, session, prices):
    assert failed(check_quotas(dev, prices, session)) == {}
    stub.quotas["L-3819A6DF"] = 31.0
    (detail, fix) = failed(check_quotas(dev, prices, session))["quota spot g"]
    assert detail == "31 vCPUs, all pools at max need 32"
    assert "--quota-code L-3819A6DF --desired-value 32 --region ap-northeast-2" in fix


def test_required_vcpus_by_quota(environments, prices):
    assert required_vcpus(environments["dev"], prices) == {
        ("on-demand", "standard"): 4 * 4,
        ("spot", "g"): 4 * 8,
        ("spot", "standard"): 10 * 8,
        ("on-demand", "g"): 2 * 4,
    }
    assert required_vcpus(environments["prod"], prices)["on-demand", "p"] == 2 * 96
    # A capacity block is paid ahead and has no quota.
    assert required_vcpus(environments["lab"], prices) == {("on-demand", "standard"): 4}
    block = environments["lab"].node_pools[1].model_copy(update={"capacity": "spot"})
    spot = environments["lab"].model_copy(update={"node_pools": [block]})
    assert required_vcpus(spot, prices) == {("spot", "p5"): 192}


def test_a_refusal_by_aws_is_one_failed_check(ready, dev, session, versions, prices):
    ready.denied = True
    refused = failed(run_checks(dev, versions, prices, session))
    assert set(refused) - {*TOOLS, "caller"} == {"quotas"}
    assert "AccessDenied" in refused["quotas"][1]


def test_missing_state_bucket(dev, session):
    assert failed(check_buckets(dev, session))["state bucket"][1] == "run `make bootstrap ENV=dev` once"


def test_a_bucket_name_that_another_account_has(dev, session, monkeypatch):
    monkeypatch.setenv("MOTO_S3_ALLOW_CROSSACCOUNT_ACCESS", "false")
    bootstrap(dev, session)
    where = {"LocationConstraint": dev.region}
    session.client("s3").create_bucket(Bucket=dev.bucket_name("logs"), CreateBucketConfiguration=where)
    assert failed(check_buckets(dev, session)) == {}
    stranger = assume(session, "arn:aws:iam::999999999999:role/stranger")
    stranger.client("s3").create_bucket(Bucket=dev.bucket_name("data"), CreateBucketConfiguration=where)
    detail = f"{dev.bucket_name('data')} (29 of 63 characters) belongs to another account"
    assert failed(check_buckets(dev, session)) == {"bucket data": (detail, "choose another `project`")}


def test_images_that_do_not_exist(dev, session, versions):
    missing = failed(check_images(dev, versions, session))
    assert set(missing) == {"node image standard", "node image nvidia"}
    assert "-v20260714 does not exist" in missing["node image nvidia"][0]


def test_addons_that_do_not_exist(stub, session, versions):
    stub.addons["coredns"] = ["v1.99.0-eksbuild.1"]
    missing = failed(check_addons(versions, session))
    assert set(missing) == {"add-on coredns"}
    assert missing["add-on coredns"][0].endswith("does not exist for 1.35; EKS offers v1.99.0-eksbuild.1")


def test_zones_and_types_that_are_not_offered(dev, session):
    assert failed([check_zones(dev, session), *check_offerings(dev, session)]) == {}
    elsewhere = dev.model_copy(update={"network": dev.network.model_copy(update={"zones": ("a", "b", "z")})})
    assert check_zones(elsewhere, session).detail == "ap-northeast-2z not available"
    detail, fix = failed(check_offerings(elsewhere, session))["pool training"]
    assert "g6.2xlarge in b" in detail
    assert "all its types are in ['a', 'c', 'd']" in fix


# --- kube context ---------------------------------------------------------------------------------------------------


def test_before_the_cluster_exists_there_is_nothing_to_belong_to(stub, kubeconfig, dev, session):
    assert require_own_context(dev, session) is None


def test_a_context_of_the_environments_cluster_is_accepted(stub, kubeconfig, dev, session):
    stub.clusters["haetsal-dev"] = ENDPOINT
    kubeconfig(**{"haetsal-dev": ENDPOINT, "other": "https://other"})
    assert require_own_context(dev, session) == "haetsal-dev"


def test_a_context_of_another_cluster_is_refused(stub, kubeconfig, dev, session):
    stub.clusters["haetsal-dev"] = ENDPOINT
    kubeconfig(**{"haetsal-dev": "https://production.example"})
    with pytest.raises(EnvironmentNotReady, match=r"means https://production\.example, but .*update-kubeconfig"):
        require_own_context(dev, session)


def test_a_missing_context_is_refused(stub, kubeconfig, dev, session):
    stub.clusters["haetsal-dev"] = ENDPOINT
    with pytest.raises(EnvironmentNotReady, match="kubectl has no context haetsal-dev; run: aws eks update-kubeconfig"):
        require_own_context(dev, session)


# --- what the person sees -------------------------------------------------------------------------------------------


def test_every_failure_has_its_line_and_its_remedy():
    text = render([Check("zones", "a, b, c"), Check("state bucket", "x is not there", "run `make bootstrap`")])
    assert text.splitlines() == [
        "ok    zones         a, b, c",
        "FAIL  state bucket  x is not there",
        "                    -> run `make bootstrap`",
    ]


def test_the_command_exits_3_without_a_traceback(ready):
    done = subprocess.run(
        [sys.executable, "-m", "ops.doctor", "--env", "dev"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 3
    assert "FAIL  caller" in done.stdout
    assert done.stderr.count("\n") == 1 and "checks failed: " in done.stderr
