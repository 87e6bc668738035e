"""Which cluster a kubectl context means, and whether it is the environment's."""

import json
import shutil
import subprocess

import boto3
from botocore.exceptions import ClientError

from jobs.errors import EnvironmentNotReady, RemoteError
from terraform.settings import Environment


def context_server(context: str) -> str | None:
    """API server address of a context in the user's kubeconfig, or None without such a context."""
    if shutil.which("kubectl") is None:
        raise EnvironmentNotReady("kubectl is not on PATH; install it")
    done = subprocess.run(["kubectl", "config", "view", "--output=json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentNotReady(f"kubectl cannot read the kubeconfig: {done.stderr.strip()}")
    view = json.loads(done.stdout)
    contexts = {entry["name"]: entry["context"]["cluster"] for entry in view.get("contexts") or []}
    clusters = {entry["name"]: entry["cluster"].get("server") for entry in view.get("clusters") or []}
    return clusters.get(contexts.get(context))


def cluster_endpoint(environment: Environment, session: boto3.Session) -> str | None:
    """API server address of the environment's cluster, or None before it exists. Raises RemoteError."""
    try:
        answer = session.client("eks").describe_cluster(name=environment.cluster_name)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise RemoteError(f"eks describe-cluster {environment.cluster_name}: {error}") from None
    return str(answer["cluster"]["endpoint"])


def require_own_context(environment: Environment, session: boto3.Session) -> str | None:
    """The environment's context, proved to be its cluster's; None before the cluster exists.

    Raises EnvironmentNotReady where the context is missing or means another cluster.
    """
    endpoint = cluster_endpoint(environment, session)
    if endpoint is None:
        return None
    name = environment.cluster_name
    server = context_server(name)
    rewrite = f"run: aws eks update-kubeconfig --name {name} --alias {name} --region {environment.region}"
    if server is None:
        raise EnvironmentNotReady(f"kubectl has no context {name}; {rewrite}")
    if server != endpoint:
        raise EnvironmentNotReady(
            f"context {name} means {server}, but the cluster of {environment.name} is {endpoint}; {rewrite}"
        )
    return name
