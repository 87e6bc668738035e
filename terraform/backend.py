"""Backend and provider: the same for every AWS stack."""

from cdktn import S3Backend, TerraformStack
from cdktn_provider_aws.provider import AwsProvider, AwsProviderDefaultTags

from terraform.settings import Environment
from terraform.state import state_bucket, state_key


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
