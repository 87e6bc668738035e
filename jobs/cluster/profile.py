"""A profile: where runs happen when not on this machine. One closed YAML file in jobs/profiles/ each.

What an AWS environment's platform is called (`make apply` made it) is not repeated there: the Makefile writes it to
`.haetsal/platform/<env>.json` from terraform/environments/<env>.yaml, and it fills what the profile leaves out.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.errors import EnvironmentNotReady, UsageError
from jobs.section import Address, Section
from jobs.settings import read_yaml, validated

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "jobs" / "profiles"
LOCAL = "local"
"""The profile that is no file: this machine."""


class Profile(Section):
    """One place to run at. Credentials are none of its business: kubeconfig and the AWS variables hold them."""

    kube_context: str = Field(min_length=1)
    """Context of the kubeconfig."""
    namespace: str = Field("haetsal", min_length=1, max_length=63)
    """Namespace of the runs."""
    storage_root: Address = Field(pattern="^s3://")
    """Where runs are kept; every pod must reach it."""
    registry: str | None = None
    """Registry and path of the images; none means the chart's."""
    tag: str | None = None
    """Tag of the images; none means the chart's own version."""
    values: str | None = None
    """Values file of charts/ray-job that goes on top of its defaults."""
    shared_cluster: str | None = None
    """Name of a RayCluster that runs share; none makes one for each run, which goes with it."""
    retries: int = Field(2, ge=0, le=20)
    """New Ray clusters that a failed run is given; each goes on from the last checkpoint. None on a shared cluster."""
    start_deadline_s: int = Field(900, ge=1)
    """Longest wait for a run to start; then it is taken back, and the reason is said."""
    operator_deadline_s: int = Field(30, ge=1)
    """A working operator has answered a new RayJob after this time."""
    defaults: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What defaults of the settings are here; config file and SET go over them."""
    cost: dict[str, Any] = Field(default_factory=dict)
    """Prices and budget of the place, the settings' section `cost`."""

    @property
    def base(self) -> dict[str, dict[str, Any]]:
        """What settings start from here."""
        cost = {"cost": self.cost | self.defaults.get("cost", {})}
        return self.defaults | cost | {"storage": {"root": self.storage_root} | self.defaults.get("storage", {})}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a profile."""
    parser.add_argument("--profile", default=LOCAL, help="where: local, or a file in jobs/profiles")
    parser.add_argument("--env", default="dev", help="AWS environment: a file in terraform/environments")


def load(name: str, environment: str) -> Profile:
    """The profile `name`; `environment` names the AWS environment that fills it.

    Raises UsageError for an unknown or wrong profile, EnvironmentNotReady without the environment's file.
    """
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, [LOCAL, *known], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join([LOCAL, *known])}"
        raise UsageError(f"PROFILE={name}: no such profile; {hint}")
    path = PROFILES / f"{name}.yaml"
    tree = read_yaml(path)
    if "kube_context" not in tree:
        tree = _platform(environment) | tree
    return validated(Profile, tree, os.path.relpath(path))


def _platform(environment: str) -> dict[str, Any]:
    path = ROOT / ".haetsal" / "platform" / f"{environment}.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EnvironmentNotReady(
            f"{path.relative_to(ROOT)}: not there; `make` writes it from terraform/environments/{environment}.yaml"
        ) from None
    return facts
