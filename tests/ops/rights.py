"""What a request to the API server needs, and whether the charts' table of rights grants it."""

from __future__ import annotations

from pathlib import Path

import yaml
from proxy import Request

TABLE = yaml.safe_load((Path(__file__).parents[2] / "charts/haetsal/rbac.yaml").read_text(encoding="utf-8"))
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
Right = tuple[str, str, str, str]
"""Group, resource, verb, and the object's name (empty for a list or a create)."""


def needed(request: Request) -> Right | None:
    """The right that a request needs; none for what everybody with an account may (discovery)."""
    path, _, query = request.path.partition("?")
    parts = path.strip("/").split("/")
    if parts[0] not in ("api", "apis"):
        return None
    parts = parts[2:] if parts[0] == "api" else parts[1:2] + parts[3:]
    if len(parts) < (1 if path.startswith("/api/") else 2):
        return None
    group = "" if path.startswith("/api/") else parts.pop(0)
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    resource, name = parts[0], parts[1] if len(parts) > 1 else ""
    verb = _VERBS.get(request.method) or ("get" if name else "watch" if "watch=" in query else "list")
    return group, resource, verb, name


def granted(account: str, right: Right) -> bool:
    """Whether the table grants it to that service account, wherever."""
    group, resource, verb, name = right
    return any(
        rule["group"] == group
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and ("names" not in rule or name in rule["names"])
        for entry in TABLE
        if entry["account"] == account
        for rule in entry["rules"]
    )
