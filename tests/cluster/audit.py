"""The API server's own record of what service accounts asked it for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Call:
    """One request of a service account."""

    account: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    refused: bool


def options(folder: Path) -> list[str]:
    """Options of an API server that keeps the record in `folder`."""
    policy = folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(_POLICY))
    return [f"--audit-policy-file={policy}", f"--audit-log-path={folder / 'audit.log'}"]


def read(folder: Path, namespace: str) -> list[Call]:
    """Requests for objects that accounts of a namespace made with their own tokens so far."""
    found = []
    for line in (folder / "audit.log").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        who = event["user"]["username"].split(":")
        what = event.get("objectRef")
        if "impersonatedUser" in event or who[:3] != ["system", "serviceaccount", namespace] or not what:
            continue
        refused = event["annotations"].get("authorization.k8s.io/decision") != "allow"
        resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
        found.append(
            Call(who[3], event["verb"], what.get("apiGroup", ""), resource, what.get("namespace", ""),
                 what.get("name", ""), refused)
        )  # fmt: skip
    return found
