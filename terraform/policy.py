"""IAM policy documents as data: small statements, and no wildcard resource without a written reason."""

import json
from dataclasses import dataclass, field
from typing import Any

ACCOUNT_ROOT_REASON = "a key policy's resource is always the key it is attached to"


@dataclass(frozen=True)
class Statement:
    """One statement. `actions` on resource "*" need `wildcard_reason`, which reaches the reader of the code."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    principal: dict[str, str] | str | None = None
    effect: str = "Allow"
    wildcard_reason: str = ""

    def __post_init__(self) -> None:
        if "*" in self.resources and not self.wildcard_reason:
            raise ValueError(f"statement {self.sid}: resource * needs a wildcard_reason")

    def as_json(self) -> dict[str, Any]:
        """The statement in IAM's own JSON form."""
        document: dict[str, Any] = {"Sid": self.sid, "Effect": self.effect}
        if self.principal is not None:
            document["Principal"] = self.principal
        document |= {"Action": list(self.actions), "Resource": list(self.resources)}
        return document | ({"Condition": self.conditions} if self.conditions else {})


def policy(statements: tuple[Statement, ...]) -> str:
    """An IAM policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": [statement.as_json() for statement in statements]})


def trust(service: str, *actions: str, conditions: dict[str, dict[str, Any]] | None = None) -> str:
    """A role's trust policy for one AWS service. `actions` default to sts:AssumeRole."""
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": service}}
    statement["Action"] = list(actions) or ["sts:AssumeRole"]
    if conditions:
        statement["Condition"] = conditions
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def key_policy(account_id: str, *services: Statement) -> str:
    """A KMS key policy: the account administers the key through IAM, and `services` are let in beside it."""
    root = Statement(
        "AccountAdministersThroughIam",
        ("kms:*",),
        ("*",),
        principal={"AWS": f"arn:aws:iam::{account_id}:root"},
        wildcard_reason=ACCOUNT_ROOT_REASON,
    )
    return policy((root, *services))
