"""What of an environment is still in the account, found by tag and by name, with what is kept on purpose told apart."""

from collections.abc import Iterable
from dataclasses import dataclass

import boto3

from ops.buckets import bucket_owner
from terraform.settings import DATA_BUCKETS, Environment
from terraform.state import state_bucket


@dataclass(frozen=True)
class Leftover:
    """Something that exists. `kept` says why it is meant to be there; empty: it should not be."""

    kind: str
    name: str
    kept: str = ""


def find_leftovers(environment: Environment, session: boto3.Session, data_deleted: bool) -> list[Leftover]:
    """Everything that is left, in the order a person would look for it."""
    finders = (_volumes, _interfaces, _load_balancers, _log_groups, _snapshots)
    found = [leftover for find in finders for leftover in find(environment, session)]
    return found + list(_buckets(environment, session, data_deleted))


def _owned_by(environment: Environment) -> list[dict[str, str]]:
    """Alternatives: all tags of one of these sets mean that a resource is of this environment.

    Ours; the cloud controller's and EBS driver's; the load balancer controller's; the VPC CNI's.
    """
    cluster = environment.cluster_name
    return [
        {"Project": environment.project, "Environment": environment.name},
        {f"kubernetes.io/cluster/{cluster}": "owned"},
        {"elbv2.k8s.aws/cluster": cluster},
        {"cluster.k8s.amazonaws.com/name": cluster},
    ]


def _tagged(session: boto3.Session, environment: Environment, operation: str, result: str, key: str) -> list[str]:
    """Ids of EC2 resources that carry one of the tag sets."""
    pages = session.client("ec2").get_paginator(operation)
    ids: dict[str, None] = {}
    for tags in _owned_by(environment):
        filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
        for page in pages.paginate(Filters=filters):
            ids |= {row[key]: None for row in page[result]}
    return list(ids)


def _volumes(environment: Environment, session: boto3.Session) -> Iterable[Leftover]:
    for id_ in _tagged(session, environment, "describe_volumes", "Volumes", "VolumeId"):
        yield Leftover("volume", id_)


def _interfaces(environment: Environment, session: boto3.Session) -> Iterable[Leftover]:
    for id_ in _tagged(session, environment, "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"):
        yield Leftover("network interface", id_)


def _load_balancers(environment: Environment, session: boto3.Session) -> Iterable[Leftover]:
    modern, classic = session.client("elbv2"), session.client("elb")
    for page in modern.get_paginator("describe_load_balancers").paginate():
        arns = [balancer["LoadBalancerArn"] for balancer in page["LoadBalancers"]]
        for some in _batches(arns):
            for row in modern.describe_tags(ResourceArns=some)["TagDescriptions"]:
                if _is_ours(environment, row["Tags"]):
                    yield Leftover("load balancer", row["ResourceArn"])
    for page in classic.get_paginator("describe_load_balancers").paginate():
        names = [balancer["LoadBalancerName"] for balancer in page["LoadBalancerDescriptions"]]
        for some in _batches(names):
            for row in classic.describe_tags(LoadBalancerNames=some)["TagDescriptions"]:
                if _is_ours(environment, row["Tags"]):
                    yield Leftover("load balancer", row["LoadBalancerName"])


def _batches(names: list[str], size: int = 20) -> Iterable[list[str]]:
    """Elastic Load Balancing describes the tags of at most 20 balancers at once."""
    return (names[start : start + size] for start in range(0, len(names), size))


def _is_ours(environment: Environment, tags: list[dict[str, str]]) -> bool:
    have = {(tag["Key"], tag.get("Value", "")) for tag in tags}
    return any(wanted.items() <= have for wanted in _owned_by(environment))


def _log_groups(environment: Environment, session: boto3.Session) -> Iterable[Leftover]:
    """By name: EKS and RDS make groups themselves, without our tags, even while they are being deleted."""
    cluster = environment.cluster_name
    pages = session.client("logs").get_paginator("describe_log_groups")
    for prefix in (f"/aws/eks/{cluster}/", f"/haetsal/{cluster}/", f"/aws/rds/instance/{cluster}-"):
        for page in pages.paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                yield Leftover("log group", group["logGroupName"])


def _snapshots(environment: Environment, session: boto3.Session) -> Iterable[Leftover]:
    prefix = f"{environment.cluster_name}-mlflow-final-"
    for page in session.client("rds").get_paginator("describe_db_snapshots").paginate(SnapshotType="manual"):
        for snapshot in page["DBSnapshots"]:
            if snapshot["DBSnapshotIdentifier"].startswith(prefix):
                yield Leftover("database snapshot", snapshot["DBSnapshotIdentifier"], "MLflow's last state")


def _buckets(environment: Environment, session: boto3.Session, data_deleted: bool) -> Iterable[Leftover]:
    kept = "" if data_deleted else f"data is spared without DELETE_DATA=yes-{environment.name}"
    suffixes = ("", "-replica") if environment.storage.replica_region else ("",)
    for purpose in (f"{bucket}{suffix}" for suffix in suffixes for bucket in DATA_BUCKETS):
        name = environment.bucket_name(purpose)
        if bucket_owner(session, name) == "us":
            yield Leftover("bucket", name, kept)
    if bucket_owner(session, state_bucket(environment)) == "us":
        yield Leftover("bucket", state_bucket(environment), "holds Terraform's state and its history")
