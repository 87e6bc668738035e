"""What must be true before `make apply`: each check looks at one thing and says what to do if it is not so."""

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import HaetsalError
from ops.buckets import bucket_owner
from ops.kube_context import require_own_context
from terraform.aws import check_account
from terraform.node_pool import WORKLOADS, NodePool
from terraform.settings import DATA_BUCKETS, Environment
from terraform.state import state_bucket
from terraform.tool import find_tool
from terraform.versions import Prices, Versions

# Service Quotas codes of EC2's vCPU limits, by how capacity is bought and by instance family.
# Source: EC2 user guide, "Amazon EC2 instance type quotas".
QUOTAS = {
    ("on-demand", "standard"): "L-1216C47A",
    ("on-demand", "g"): "L-DB2E81BA",
    ("on-demand", "p"): "L-417A185B",
    ("spot", "standard"): "L-34B43A08",
    ("spot", "g"): "L-3819A6DF",
    ("spot", "p"): "L-7212CCBC",
    ("spot", "p5"): "L-C4BD4855",
}


@dataclass(frozen=True)
class Check:
    """One line of `make doctor`. `fix` says what to do; it is empty on a pass."""

    name: str
    detail: str
    fix: str = ""

    @property
    def passed(self) -> bool:
        return not self.fix


def check_tools(versions: Versions) -> Iterable[Check]:
    """Programs that the verbs run."""
    try:
        tool = find_tool(versions.terraform)
        yield Check("terraform", f"{tool.binary.name} {'.'.join(map(str, tool.version))}")
    except HaetsalError as error:
        yield Check("terraform", "not usable", str(error))
    for program, why, question in (
        ("node", "synthesises the JSON", ["--version"]),
        ("aws", "logs in to the cluster", ["--version"]),
        ("kubectl", "applies CRDs", ["version", "--client"]),
        ("helm", "reads the charts' CRDs", ["version", "--short"]),
    ):
        path = shutil.which(program)
        if path is None:
            yield Check(program, "not on PATH", f"install {program}: it {why}")
            continue
        done = subprocess.run([path, *question], capture_output=True, text=True, check=False)
        said = (done.stdout or done.stderr).strip().splitlines()
        yield Check(program, said[0] if said else path)


def check_caller(environment: Environment, session: boto3.Session) -> Check:
    """Whoever applies must be able to talk to the cluster it makes."""
    caller = check_account(environment, session)
    names = {admin.split("/")[-1] for admin in environment.cluster.admins}
    name = caller.split("/")[1] if ":assumed-role/" in caller else caller.split("/")[-1]
    if name in names:
        return Check("caller", f"{caller} is in cluster.admins")
    return Check("caller", caller, "add this role or user to cluster.admins, or the add-ons cannot be installed")


def check_zones(environment: Environment, session: boto3.Session) -> Check:
    """The region is open to the account and has the zones; letters differ between accounts."""
    zones = session.client("ec2").describe_availability_zones()["AvailabilityZones"]
    there = {zone["ZoneName"] for zone in zones if zone["State"] == "available"}
    missing = sorted(set(environment.zones) - there)
    if missing:
        return Check("zones", f"{', '.join(missing)} not available", f"choose network.zones among {sorted(there)}")
    return Check("zones", ", ".join(environment.zones))


def check_offerings(environment: Environment, session: boto3.Session) -> Iterable[Check]:
    """Every instance type of a pool is offered in each of its zones, or nodes there never start."""
    wanted = sorted({name for pool in environment.node_pools for name in pool.instance_types})
    pages = session.client("ec2").get_paginator("describe_instance_type_offerings")
    offered = defaultdict(set)
    filters = [{"Name": "instance-type", "Values": wanted}]
    for page in pages.paginate(LocationType="availability-zone", Filters=filters):
        for row in page["InstanceTypeOfferings"]:
            offered[row["InstanceType"]].add(row["Location"][len(environment.region) :])
    for pool in environment.node_pools:
        zones = set(pool.zones or environment.network.zones)
        common = set.intersection(*(offered[name] for name in pool.instance_types))
        absent = [f"{name} in {zone}" for name in pool.instance_types for zone in sorted(zones - offered[name])]
        if absent:
            fix = f"set the pool's zones (all its types are in {sorted(common) or 'no zone'}) or other instance_types"
            yield Check(f"pool {pool.name}", f"not offered: {', '.join(absent)}", fix)
        else:
            yield Check(f"pool {pool.name}", f"{', '.join(pool.instance_types)} in {', '.join(sorted(zones))}")


def required_vcpus(environment: Environment, prices: Prices) -> dict[tuple[str, str], int]:
    """VCPUs that all pools at their max need, by quota. Capacity blocks are paid ahead and have no such limit."""
    need: dict[tuple[str, str], int] = defaultdict(int)
    for pool in environment.node_pools:
        capacity = pool.capacity or WORKLOADS[pool.workload].capacity
        if capacity != "capacity-block":
            need[capacity, _family(pool, capacity)] += pool.max * max(
                prices.instances[name].vcpus for name in pool.instance_types
            )
    return dict(need)


def _family(pool: NodePool, capacity: str) -> str:
    name = pool.instance_types[0]
    if name.startswith("p5") and capacity == "spot":
        return "p5"
    return name[0] if name[0] in "gp" else "standard"


def check_quotas(environment: Environment, prices: Prices, session: boto3.Session) -> Iterable[Check]:
    """The account's vCPU limits cover every pool at its max. New accounts have 0 for GPUs."""
    quotas = session.client("service-quotas")
    for (capacity, family), need in sorted(required_vcpus(environment, prices).items()):
        code = QUOTAS[capacity, family]
        name = f"quota {capacity} {family}"
        have = int(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
        ask = (
            f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
            f"--desired-value {need} --region {environment.region}; or lower max"
        )
        yield Check(name, f"{have} vCPUs, all pools at max need {need}", "" if have >= need else ask)


def check_buckets(environment: Environment, session: boto3.Session) -> Iterable[Check]:
    """Bucket names are short enough, and free or already ours; the state bucket is there."""
    for purpose in DATA_BUCKETS:
        name = environment.bucket_name(purpose)
        owner = bucket_owner(session, name)
        taken = owner == "another account"
        detail = f"{name} ({len(name)} of 63 characters) belongs to {owner}"
        yield Check(f"bucket {purpose}", detail, "choose another `project`" if taken else "")
    name = state_bucket(environment)
    if bucket_owner(session, name) == "us":
        yield Check("state bucket", f"{name} is there")
    else:
        yield Check("state bucket", f"{name} is not there", f"run `make bootstrap ENV={environment.name}` once")


def check_images(environment: Environment, versions: Versions, session: boto3.Session) -> Iterable[Check]:
    """The pinned node images exist: EKS names them after the Kubernetes version and the release's day."""
    ec2 = session.client("ec2")
    releases = {pool.ami_release or versions.eks.ami_release for pool in environment.node_pools}
    for release in sorted(releases):
        day = release.split("-")[1]
        for variant in ("standard", "nvidia"):
            name = f"amazon-eks-node-al2023-x86_64-{variant}-{versions.kubernetes}-v{day}"
            found = ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": [name]}])["Images"]
            fix = "choose a release from the amazon-eks-ami changelog: eks.ami_release in versions.yaml"
            yield Check(f"node image {variant}", name if found else f"{name} does not exist", "" if found else fix)


def check_addons(versions: Versions, session: boto3.Session) -> Iterable[Check]:
    """The pinned EKS add-ons exist for the Kubernetes version."""
    eks = session.client("eks")
    for name, version in versions.eks.addons.items():
        answer = eks.describe_addon_versions(addonName=name, kubernetesVersion=versions.kubernetes)
        offered = [row["addonVersion"] for addon in answer["addons"] for row in addon["addonVersions"]]
        if version in offered:
            yield Check(f"add-on {name}", version)
        else:
            newest = f"; EKS offers {offered[0]}" if offered else ""
            fix = "correct eks.addons in versions.yaml"
            yield Check(f"add-on {name}", f"{version} does not exist for {versions.kubernetes}{newest}", fix)


def check_context(environment: Environment, session: boto3.Session) -> Check:
    """The kubectl context that will be used is the environment's cluster."""
    context = require_own_context(environment, session)
    return Check("kube context", context or "the cluster does not exist yet; `make apply` writes its context")


def run_checks(environment: Environment, versions: Versions, prices: Prices, session: boto3.Session) -> list[Check]:
    """All checks; without usable credentials only those that need none."""
    results = list(check_tools(versions))
    results += _guarded("caller", lambda: [check_caller(environment, session)])
    if any(check.name == "caller" and check.detail == NOT_DONE for check in results):
        return results
    checks: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
        ("zones", lambda: [check_zones(environment, session)]),
        ("instance types", lambda: check_offerings(environment, session)),
        ("quotas", lambda: check_quotas(environment, prices, session)),
        ("buckets", lambda: check_buckets(environment, session)),
        ("node images", lambda: check_images(environment, versions, session)),
        ("add-ons", lambda: check_addons(versions, session)),
        ("kube context", lambda: [check_context(environment, session)]),
    )
    for name, check in checks:
        results += _guarded(name, check)
    return results


NOT_DONE = "could not be checked"


def _guarded(name: str, check: Callable[[], Iterable[Check]]) -> list[Check]:
    """A check that AWS refuses is a failed check, not the end of all others."""
    try:
        return list(check())
    except HaetsalError as error:
        return [Check(name, NOT_DONE, str(error))]
    except (ClientError, BotoCoreError) as error:
        return [Check(name, NOT_DONE, f"{error}")]
