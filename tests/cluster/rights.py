"""Rights of the service accounts: charts/haetsal/rbac.yaml as single rights, and which of them a call needed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tests.charts.test_rbac import rights_of_the_table
from tests.cluster.audit import Call


@dataclass(frozen=True)
class Right:
    """One verb on one resource; no namespace: in the whole cluster, no name: on all objects."""

    account: str
    namespace: str | None
    group: str
    resource: str
    verb: str
    name: str | None


TABLE = frozenset(
    Right(account, namespace, group, resource, verb, None if name == "*" else name)
    for account, namespace, group, resource, verb, name in rights_of_the_table()
)


def used(call: Call, table: Collection[Right]) -> Right | None:
    """The right that a call needed; none for what everybody may who can log in."""
    return next(
        (
            right
            for right in table
            if (right.account, right.group, right.resource, right.verb)
            == (call.account, call.group, call.resource, call.verb)
            and right.namespace in (None, call.namespace or None)
            and right.name in (None, call.name)
        ),
        None,
    )
