"""The plan carried out. Each write is whole and repeatable: a restore that was killed is simply run again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from jobs.errors import EnvironmentNotReady, UsageError
from ops.backup.database import Database, rows_from
from ops.kinds import KINDS, RAY, Kind
from ops.kube import Changed, Cluster, Exists, Missing, Object
from ops.restore.content import Content
from ops.restore.desired import Target
from ops.restore.plan import Action, Plan, Policy, Step, plan_database, plan_object

_TRIES = 5
"""Times that an object is planned again because somebody wrote it in between."""

_log = logging.getLogger(__name__)


def observe_target(cluster: Cluster, namespace: str, backup_id: str, asleep: bool = False) -> Target:
    """What the cluster serves and knows. Raises Missing where the Ray CRDs are not installed."""
    api_versions, schemas = {}, {}
    for kind in KINDS:
        if kind.optional and cluster.served(kind.group, kind.name) is None:
            continue
        resource = cluster.resource(kind.group, kind.name)
        api_versions[kind.name] = resource.api_version
        if kind.group == RAY:
            schemas[kind.name] = cluster.schema(resource)
    return Target(namespace, backup_id, api_versions, schemas, asleep)


def make_plan(
    cluster: Cluster,
    content: Content,
    target: Target,
    policy: Policy,
    database: Database | None,
    server_version: str | None,
) -> Plan:
    """Observe the target and plan. Raises Missing for a namespace that is not there."""
    cluster.get("", "Namespace", target.namespace)
    steps: list[Step] = []
    for kind in KINDS:
        saved = {name: body for saved_kind, name, body in content.saved() if saved_kind == kind}
        if not saved:
            continue
        if kind.name in target.api_versions:
            for live in cluster.find_all(kind.group, kind.name, target.namespace):
                name = live["metadata"]["name"]
                if name in saved:
                    steps.append(plan_object(kind, name, saved.pop(name), live, target, policy))
        steps += [plan_object(kind, name, body, None, target, policy) for name, body in saved.items()]
    item = content.find("Database")
    if item is None or database is None:
        return Plan(steps)
    found = database.find()
    action, reason = plan_database(item, found, server_version, policy, content.manifest.id, database.dialect)
    return Plan(steps, action, reason)


def refuse_conflicts(plan: Plan) -> None:
    """Raise UsageError if the plan has conflicts: the policy `fail` makes them, and objects that are being deleted."""
    conflicts = [step for step in plan.steps if step.action is Action.CONFLICT]
    going = [f"{step.kind.name} {step.name}: {step.reason}" for step in conflicts if step.reason]
    if going:
        raise EnvironmentNotReady("; ".join(going[:5]))
    found = [f"{step.kind.name} {step.name}" for step in conflicts]
    if plan.database is Action.CONFLICT:
        found.append("MLflow's database")
    if found:
        shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise UsageError(f"{len(found)} things are there and differ: {shown}; choose CONFLICT=skip or CONFLICT=update")


def apply(
    cluster: Cluster, content: Content, plan: Plan, target: Target, policy: Policy, database: Database | None
) -> None:
    """Write what the plan says: ConfigMaps, MLflow's database, then Ray's objects in the order of `KINDS`."""
    steps = iter(plan.steps)
    rest: list[Step] = []
    for step in steps:
        if step.kind.group == RAY:
            rest = [step, *steps]
            break
        _write(cluster, content, step, target, policy)
    item = content.find("Database")
    if database and item and plan.database in (Action.CREATE, Action.UPDATE):
        database.restore(content.stream(item), rows_from(item.detail["rows"]), content.manifest.id)
    for step in rest:
        _write(cluster, content, step, target, policy)


def _write(cluster: Cluster, content: Content, step: Step, target: Target, policy: Policy) -> None:
    """Carry out one step; if the object has changed since the plan, plan it again."""
    for _ in range(_TRIES):
        try:
            if step.action is Action.CREATE:
                cluster.create(step.kind.group, json.loads(step.body))
            elif step.action is Action.UPDATE:
                cluster.replace(step.kind.group, json.loads(step.body))
            return
        except (Exists, Changed, Missing) as error:
            _log.info("%s; looking again", error)
            step = _plan_again(cluster, content, step, target, policy)
            if step.action is Action.CONFLICT:
                raise UsageError(f"{step.kind.name} {step.name}: was made by somebody else meanwhile") from None
    raise Changed(f"{step.kind.name} {step.name}: changes faster than it can be written; stop what writes it")


def _plan_again(cluster: Cluster, content: Content, step: Step, target: Target, policy: Policy) -> Step:
    live = find_live(cluster, step.kind, step.name, target.namespace)
    saved = next(body for kind, name, body in content.saved() if (kind, name) == (step.kind, step.name))
    return plan_object(step.kind, step.name, saved, live, target, policy)


def find_live(cluster: Cluster, kind: Kind, name: str, namespace: str) -> Object | None:
    """The object that is there, or none. Raises Missing only where the namespace is gone."""
    try:
        return cluster.get(kind.group, kind.name, name, namespace)
    except Missing:
        cluster.get("", "Namespace", namespace)
        return None


def written(plan: Plan) -> Iterator[Step]:
    """Steps whose objects must be in the target afterwards, as planned."""
    return (step for step in plan.steps if step.action in (Action.CREATE, Action.UPDATE, Action.UNCHANGED))
