"""What the tests of the pipeline put in the place of servers: users whose opinions are drawn, not measured.

The jobs, the registry, the gate and the storage beside them are the real ones. Gateway and engines are too slow to
start at every one of the kills.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from commands import MAINS

from jobs import cli, settings
from jobs.release.ab import Observation
from jobs.release.subjobs import ended
from jobs.runs import Run, job_of
from jobs.settings import Settings
from jobs.storage import Storage


@dataclass(frozen=True)
class InProcess:
    """The real jobs, in this process, which has paid for the imports."""

    scratch: Path

    def run(self, run_id: str, tree: Settings) -> Run:
        """See `jobs.release.subjobs.Jobs`."""
        config = self.scratch / f"{run_id}.yaml"
        config.write_text(settings.to_yaml(tree), encoding="utf-8")
        sys.argv = [job_of(run_id), "--config", str(config), "--run-id", run_id]
        try:
            cli.main(MAINS[job_of(run_id)])
        except SystemExit as end:
            return ended(Run(Storage(tree.storage.root), run_id), int(end.code or 0))


@dataclass
class Crowd:
    """A hundred answers between two looks, shared out as asked. `slower`, `failing`, `liked` are the challenger's."""

    slower: float = 1.0
    failing: float = 0.0
    liked: float = 0.8
    silent: bool = False
    shares: list[float] = field(default_factory=list)
    up: list[tuple[str, str]] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))

    @contextmanager
    def trial(self, champion: Run, challenger: Run) -> Iterator[Crowd]:
        """See `jobs.release.serving.Serving`."""
        self.up.append((champion.id, challenger.id))
        yield self
        assert self.shares[-1] == 0.0, "the challenger was left on traffic"
        self.up.pop()

    def share(self, challenger: float) -> None:
        """See `jobs.release.serving.Trial`."""
        self.shares.append(challenger)

    def observed(self) -> list[Observation]:
        """See there."""
        return [] if self.silent else [self._one(float(at)) for at in range(100)]

    def _one(self, at: float) -> Observation:
        ours = bool(self.rng.random() < self.shares[-1])
        if ours and self.rng.random() < self.failing:
            return Observation(at, ours, failed=True)
        latency_s = float(np.exp(self.rng.normal(0, 0.2))) * (self.slower if ours else 1.0)
        score = float(self.rng.random() < (self.liked if ours else 0.8))
        return Observation(at, ours, False, latency_s, int(self.rng.integers(15, 26)), score)
