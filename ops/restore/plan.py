"""What a restore will do: a pure function of the backup and of the cluster as it was observed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum

from jobs.errors import EnvironmentNotReady, UsageError
from ops.backup.catalog import Item
from ops.backup.database import Found
from ops.kinds import Kind
from ops.kube import Object
from ops.restore.desired import RESTORED_FROM, Target, comparable, desired
from ops.restore.fields import differences


class Policy(StrEnum):
    """What happens to an object that is there and differs."""

    SKIP = "skip"
    UPDATE = "update"
    FAIL = "fail"


class Action(StrEnum):
    """What happens to one thing."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    SKIP = "skip"
    """It is there and differs, and stays as it is."""
    CONFLICT = "conflict"
    LEAVE_OUT = "leave out"
    """It must not be created: ended jobs, what an owner makes, kinds that the cluster lacks."""


@dataclass(frozen=True)
class Step:
    """One line of the plan. `body` is the JSON to write."""

    action: Action
    kind: Kind
    name: str
    body: bytes = b""
    reason: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything in the order in which it happens; the database comes before the Ray kinds."""

    steps: list[Step] = field(default_factory=list)
    database: Action = Action.LEAVE_OUT
    database_reason: str = "the backup has none, or mlflow.database is not set"

    def count(self, action: Action) -> int:
        """How many objects have this action."""
        return sum(step.action is action for step in self.steps)


def plan_object(kind: Kind, name: str, saved: bytes, live: Object | None, target: Target, policy: Policy) -> Step:
    """The step for one saved object. `live` is what the target has by that name."""
    wanted = desired(kind, json.loads(saved), target)
    if wanted.body is None:
        return Step(Action.LEAVE_OUT, kind, name, reason=wanted.reason)
    if live is None:
        return Step(Action.CREATE, kind, name, json.dumps(wanted.body).encode(), details=wanted.notes)
    if live["metadata"].get("deletionTimestamp"):
        return Step(Action.CONFLICT, kind, name, reason="it is being deleted; wait until its finalizers let it go")
    found = tuple(differences(comparable(kind, wanted.body), comparable(kind, live)))
    if not found:
        return Step(Action.UNCHANGED, kind, name, json.dumps(wanted.body).encode())
    if policy is Policy.FAIL:
        return Step(Action.CONFLICT, kind, name, details=found)
    if policy is Policy.SKIP:
        return Step(Action.SKIP, kind, name, details=found)
    if kind.name == "RayJob":
        return Step(Action.SKIP, kind, name, reason="a job that is there is never changed", details=found)
    wanted.body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return Step(Action.UPDATE, kind, name, json.dumps(wanted.body).encode(), details=found + wanted.notes)


def plan_database(
    item: Item, found: Found, server_version: str | None, policy: Policy, backup_id: str, dialect: str
) -> tuple[Action, str]:
    """What happens to MLflow's database. Raises EnvironmentNotReady where its schema does not fit the server."""
    if item.detail["dialect"] != dialect:
        raise UsageError(f"{backup_id}: holds a {item.detail['dialect']} database, mlflow.database is {dialect}")
    if found.restored_from == backup_id:
        return Action.UNCHANGED, "restored from this backup already; what MLflow wrote since stays"
    if found.revision and policy is Policy.SKIP:
        return Action.SKIP, f"it holds MLflow's tables already (revision {found.revision})"
    if found.revision and policy is Policy.FAIL:
        return Action.CONFLICT, f"it holds MLflow's tables already (revision {found.revision})"
    note = _fitting(item, found.revision, server_version)
    return (Action.UPDATE if found.revision else Action.CREATE), note


def _fitting(item: Item, revision: str | None, server_version: str | None) -> str:
    """A note on the schema. MLflow migrates older databases and cannot read newer ones."""
    saved, saved_version = item.detail["revision"], item.detail.get("mlflow_version")
    if revision == saved:
        return f"schema {saved}"
    if server_version is None or saved_version is None:
        if revision is None and server_version is None:
            return f"schema {saved}; no server was asked for its version (mlflow.uri)"
        raise EnvironmentNotReady(
            f"the backup's database has schema {saved}, the target's {revision}, and without both versions of MLflow "
            "it cannot be said which is newer; set mlflow.uri"
        )
    if _version(saved_version) > _version(server_version):
        raise EnvironmentNotReady(
            f"the backup's database (schema {saved}) was written by MLflow {saved_version}, the target runs "
            f"{server_version} and cannot read it; upgrade MLflow first"
        )
    if _version(saved_version) == _version(server_version):
        return f"schema {saved}"
    return f"schema {saved} of MLflow {saved_version}; run `mlflow db upgrade` for {server_version}"


def _version(text: str) -> tuple[int, ...]:
    """Numbers of a version; a pre-release counts as its release."""
    numbers = []
    for part in text.split(".")[:3]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def render(plan: Plan) -> str:
    """The plan for a person: one line a change, the differences below it; what stays the same is only counted."""
    lines = []
    for step in plan.steps:
        if step.action is Action.UNCHANGED:
            continue
        why = f"  ({step.reason})" if step.reason else ""
        lines.append(f"{step.action:<10} {step.kind.name} {step.name}{why}")
        shown = [detail for detail in step.details if RESTORED_FROM not in detail]
        lines += [f"{'':<12}{detail}" for detail in shown]
    lines.append(f"{plan.database:<10} MLflow's database  ({plan.database_reason})")
    counted = ", ".join(f"{plan.count(action)} {action}" for action in Action if plan.count(action))
    return "\n".join([*lines, f"plan: {counted or 'no objects'}"])
