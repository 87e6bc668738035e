"""Where an environment's state is: names only, so that tools which make no construct need not start Node."""

from terraform.settings import Environment

STACKS = ("storage", "platform", "addons")
"""Stacks of an environment in the order they are applied; they are destroyed in reverse."""


def state_bucket(environment: Environment) -> str:
    """The bucket that `make bootstrap` makes."""
    return environment.bucket_name("state")


def state_key(stack: str) -> str:
    """Where a stack's state is in the state bucket."""
    return f"{stack}/terraform.tfstate"
