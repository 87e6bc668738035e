"""Where state lives and which account the provider talks to: the same for every AWS stack."""

from cdktn import S3Backend, TerraformStack
from cdktn_provider_aws.provider import AwsProvider, AwsProviderDefaultTags

from terraform.settings import Environment

STACKS = ("storage", "platform", "addons")
"""Stacks of an environment in the order they are applied; they are destroyed in reverse."""


def state_bucket(environment: Environment) -> str:
    """The bucket that `make bootstrap` makes."""
    return environment.bucket_name("state")


def state_key(stack: str) -> str:
    """Where a stack's state is in the state bucket."""
    return f"{stack}/terraform.tfstate"


def use_s3_state(stack: TerraformStack, environment: Environment) -> None:
    """Keep `stack`'s state in the state bucket, encrypted, with a lock file beside it."""
    S3Backend(
        stack,
        bucket=state_bucket(environment),
        key=state_key(stack.node.id),
        region=environment.region,
        allowed_account_ids=[environment.account_id],
        encrypt=True,
        use_lockfile=True,
    )


def aws_provider(stack: TerraformStack, environment: Environment) -> AwsProvider:
    """A provider bound to the environment's account; every resource it makes carries the environment's tags."""
    return AwsProvider(
        stack,
        "aws",
        region=environment.region,
        allowed_account_ids=[environment.account_id],
        default_tags=[AwsProviderDefaultTags(tags=environment.tags)],
    )
