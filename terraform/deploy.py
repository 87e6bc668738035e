"""Plan and apply the stacks of an environment, in order."""

import json
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from jobs.errors import EnvironmentNotReady
from terraform.aws import check_account
from terraform.kubernetes import apply_crds, write_context
from terraform.settings import Environment, Kind
from terraform.state import STACKS, state_bucket, state_key
from terraform.tool import Tool, stack_folders
from terraform.versions import Versions


def plan(environment: Environment, tool: Tool, out: Path, session: boto3.Session) -> None:
    """Plan every stack whose predecessors are applied; a later one reads outputs that do not exist yet."""
    waits_for = ""
    for name, folder in stack_folders(out).items():
        if waits_for:
            print(
                f"{name}: can be planned once {waits_for} is applied; `make apply` goes one by one and asks each time"
            )
            continue
        tool.init(folder)
        tool.run(folder, "plan", "-input=false")
        if not applied(environment, name, session):
            waits_for = name


def apply(environment: Environment, versions: Versions, tool: Tool, out: Path) -> None:
    """Apply storage, platform, CRDs, add-ons. The tool asks before each; TF_CLI_ARGS_apply=-auto-approve says yes."""
    folders = stack_folders(out)
    for name in STACKS:
        if name == "addons":
            apply_crds(versions, write_context(environment))
        tool.init(folders[name])
        tool.run(folders[name], "apply")


def apply_kind(kind: Kind, versions: Versions, tool: Tool, out: Path) -> None:
    """Apply CRDs and add-ons to a local cluster that already runs."""
    apply_crds(versions, kind.kube_context)
    folder = stack_folders(out)["addons"]
    tool.init(folder)
    tool.run(folder, "apply")


def applied(environment: Environment, stack: str, session: boto3.Session) -> bool:
    """Whether the stack's state has resources; a destroyed stack's has none, and no outputs either."""
    s3 = session.client("s3")
    try:
        state = s3.get_object(Bucket=state_bucket(environment), Key=state_key(stack))["Body"].read()
    except s3.exceptions.NoSuchKey:
        return False
    return bool(json.loads(state)["resources"])


def check_state(environment: Environment, session: boto3.Session) -> None:
    """Right account, and a place for the state. Raises EnvironmentNotReady."""
    check_account(environment, session)
    try:
        session.client("s3").head_bucket(Bucket=state_bucket(environment))
    except ClientError:
        raise EnvironmentNotReady(
            f"state bucket {state_bucket(environment)} is not there; run `make bootstrap ENV={environment.name}` once"
        ) from None
