"""Talking to AWS: whose credentials these are, and errors as sentences."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from jobs.errors import EnvironmentNotReady, RemoteError
from terraform.settings import Environment


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turn what AWS refuses, and what does not reach it, into a RemoteError."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise RemoteError(f"AWS: {error}") from error


def check_account(environment: Environment, session: boto3.Session) -> str:
    """The caller's ARN. Raises EnvironmentNotReady without credentials, or with those of another account."""
    try:
        caller = session.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise EnvironmentNotReady(f"no usable AWS credentials: {error}; log in (aws sso login, AWS_PROFILE)") from None
    if caller["Account"] != environment.account_id:
        raise EnvironmentNotReady(
            f"credentials are of account {caller['Account']}, but {environment.name}.yaml says account_id "
            f'{environment.account_id}; switch credentials, or write account_id: "{caller["Account"]}"'
        )
    return str(caller["Arn"])
