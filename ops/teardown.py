"""`make destroy`: what Kubernetes made first, then Helm, then Terraform; then a list of what is left."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import boto3

from jobs.cli import main
from jobs.errors import RemoteError, UsageError
from ops.buckets import empty_bucket
from ops.cluster_teardown import ClusterTeardown
from ops.kube_context import require_own_context
from ops.leftovers import Leftover, find_leftovers
from terraform.aws import aws_errors, check_account
from terraform.deploy import applied
from terraform.main import synth
from terraform.settings import DATA_BUCKETS, Environment, load_environment
from terraform.tool import Tool, find_tool, stack_folders
from terraform.versions import load_versions


def confirm(environment: Environment, confirmation: str | None, delete_data: str | None) -> bool:
    """Whether data goes too. Raises UsageError unless the person has named the environment, and for data twice."""
    if environment.deletion_protection:
        raise UsageError(
            f"{environment.name} is protected; set deletion_protection: false in its file, `make apply`, then destroy"
        )
    if delete_data not in (None, f"yes-{environment.name}"):
        raise UsageError(f"DELETE_DATA={delete_data}: to delete the buckets write DELETE_DATA=yes-{environment.name}")
    if confirmation is None and sys.stdin.isatty():
        what = "everything, buckets included" if delete_data else "everything but the buckets"
        confirmation = input(f"This destroys {what} of {environment.name}. Type its name to go on: ")
    if confirmation != environment.name:
        raise UsageError(f"not confirmed; give CONFIRM={environment.name} to destroy {environment.name}")
    return delete_data is not None


def teardown(
    environment: Environment,
    session: boto3.Session,
    tool: Tool,
    out: Path,
    delete_data: bool,
    cluster: ClusterTeardown | None,
) -> list[Leftover]:
    """Destroy in order and return what is left. `cluster` is none where there is no cluster (any more)."""
    if cluster:
        _step("Ray jobs, services and clusters", cluster.delete_ray)
        _step("load balancers", cluster.delete_load_balancers)
        _step("volume claims", cluster.request_volume_deletion)
        # Without a cluster its Helm releases are gone as well, and Helm could not be asked.
        _destroy(environment, session, tool, out, "addons")
        _step("volumes", cluster.wait_for_volumes)
    _destroy(environment, session, tool, out, "platform")
    if delete_data:
        _empty_buckets(environment, session)
        _destroy(environment, session, tool, out, "storage")
    return find_leftovers(environment, session, delete_data)


def _step(what: str, action: Callable[[], None]) -> None:
    print(f"deleting {what}", flush=True)
    action()


def _destroy(environment: Environment, session: boto3.Session, tool: Tool, out: Path, stack: str) -> None:
    if not applied(environment, stack, session):
        print(f"{stack}: nothing in its state", flush=True)
        return
    folder = stack_folders(out)[stack]
    tool.init(folder)
    tool.run(folder, "destroy", "-auto-approve")  # confirmed once, for the whole order


def _empty_buckets(environment: Environment, session: boto3.Session) -> None:
    places = [("", environment.region)]
    if environment.storage.replica_region:
        places.append(("-replica", environment.storage.replica_region))
    for suffix, region in places:
        regional = boto3.Session(region_name=region) if region != session.region_name else session
        for purpose in DATA_BUCKETS:
            name = environment.bucket_name(f"{purpose}{suffix}")
            print(f"deleting objects of {name}", flush=True)
            empty_bucket(regional, name)


def report(leftovers: list[Leftover]) -> None:
    """Print what is left. Raises RemoteError if any of it should not be."""
    for leftover in leftovers:
        print(f"{'kept' if leftover.kept else 'LEFT'}  {leftover.kind:<17}  {leftover.name}  {leftover.kept}".rstrip())
    unwanted = [leftover for leftover in leftovers if not leftover.kept]
    if unwanted:
        raise RemoteError(
            f"{len(unwanted)} things are left and may cost money; if they are still being deleted, run this again"
        )
    print("nothing is left that should not be")


def run(name: str, confirmation: str | None, delete_data_flag: str | None) -> None:
    """Tear down environment `name`. Raises HaetsalError."""
    environment = load_environment(name)
    delete_data = confirm(environment, confirmation, delete_data_flag)
    session = boto3.Session(region_name=environment.region)
    tool = find_tool(load_versions().terraform)
    with aws_errors():
        check_account(environment, session)
        context = require_own_context(environment, session)
        cluster = ClusterTeardown(context) if context else None
        report(teardown(environment, session, tool, synth(environment), delete_data, cluster))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Destroy an environment, in order, and list what is left")
    parser.add_argument("--env", default="dev", help="environment: a file in terraform/environments")
    parser.add_argument("--confirm", help="the environment's name: destroy without asking")
    parser.add_argument("--delete-data", help="yes-<environment>: delete the buckets too")
    options = parser.parse_args()
    main(lambda: run(options.env, options.confirm, options.delete_data))
