"""Install and remove one run with Helm: charts/ray-job, whose release is named like the run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.cluster.obstacles import refusal
from jobs.cluster.profile import ROOT, Profile
from jobs.errors import EnvironmentNotReady, HaetsalError, RemoteError, UsageError

CHART = ROOT / "charts" / "ray-job"
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Helm:
    """The binary that `make setup` put beside Python, or the one on PATH, and where it works."""

    binary: Path
    profile: Profile

    @classmethod
    def find(cls, profile: Profile) -> Helm:
        """Raises EnvironmentNotReady without binary or chart."""
        beside = Path(sys.executable).parent / "helm"
        found = str(beside) if beside.exists() else shutil.which("helm")
        if found is None:
            raise EnvironmentNotReady("helm is not installed; `make setup` brings it")
        if not (CHART / "Chart.yaml").is_file():
            raise EnvironmentNotReady(
                f"{CHART.relative_to(ROOT)}: the chart is not there; check this checkout out whole"
            )
        return cls(Path(found), profile)

    def install(self, run_id: str, values: dict[str, Any]) -> None:
        """Hand a run in. Raises UsageError for values that the chart refuses, EnvironmentNotReady for what the cluster
        refuses, RemoteError otherwise."""
        files = ["--values", str(CHART / self.profile.values)] if self.profile.values else []
        text = yaml.safe_dump(values, allow_unicode=True)  # over a pipe: nothing of a run is left on this disk
        done = self._run("install", run_id, str(CHART), "--dependency-update", *files, "--values", "-", stdin=text)
        if done.returncode != 0:
            raise explain(done.stderr, self.profile)

    def remove(self, run_id: str) -> None:
        """Take a run away: its RayJob now, what belongs to that soon after. Fine if it is not there."""
        done = self._run("uninstall", run_id, "--ignore-not-found", "--cascade", "background")
        if done.returncode != 0:
            raise explain(done.stderr, self.profile)

    def _run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        where = ["--kube-context", self.profile.kube_context, "--namespace", self.profile.namespace]
        command = [str(self.binary), *arguments, *where]
        try:
            return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RemoteError(
                f"helm {arguments[0]} did not end within {_TIMEOUT_S} s; is the API server slow?"
            ) from None


def explain(stderr: str, profile: Profile) -> HaetsalError:
    """What Helm's words mean, as one of our errors."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith(("WARNING", "level="))]
    said = " ".join(" ".join(lines).split()).removeprefix("Error: ")
    if obstacle := refusal(said):
        return EnvironmentNotReady(f"{profile.kube_context}: {obstacle.sentence}")
    if "no matches for kind" in said or "ensure CRDs are installed" in said:
        return EnvironmentNotReady(
            f"{profile.kube_context}: has no RayJobs; `make crds` and `make apply` install KubeRay"
        )
    if "execution error at" in said or "values don't meet the specifications" in said:
        return UsageError(f"charts/ray-job refuses its values: {said.rpartition('): ')[2] or said}")
    if "is invalid" in said:
        return UsageError(f"{profile.kube_context}: the API server refuses the run: {said}")
    return RemoteError(f"helm: {said}")
