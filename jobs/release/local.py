"""An A/B test on this machine: engines, a gateway in front of them, and simulated users, for as long as it lasts."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobs.registry.versions import CHALLENGER, CHAMPION
from jobs.release import gateway
from jobs.release.ab import Observation
from jobs.release.users import Users, questions
from jobs.runs import Run
from jobs.serving import local, source
from jobs.serving.gateway.config import Backend, Config, Model, Retries, Variant
from jobs.settings import Settings

_MODEL = "haetsal"
_ENGINE_PORT = 8200
"""Asked for; another one if it is taken."""
_RELOAD_S = 2.0
"""The gateway looks at its file every second; after this long a change is in force."""


class Engines(Protocol):
    """Puts models up."""

    def up(self, models: Mapping[str, Run]) -> AbstractContextManager[Mapping[str, Backend]]:
        """Each model by its variant's name, ready to answer."""


@dataclass(frozen=True)
class RayEngines:
    """Both as adapters over one base, in one application of Ray Serve, as `make serve` runs it."""

    tree: Settings

    @contextmanager
    def up(self, models: Mapping[str, Run]) -> Iterator[Mapping[str, Backend]]:
        """See Engines. Raises UsageError for whole models and IntegrityError for adapters of different bases."""
        from jobs import serve  # with Ray Serve, which a pipeline without a test need not load
        from jobs.serving import app

        adapters = {name: run.id for name, run in models.items()}
        serving = self.tree.serving.model_copy(update={"adapters": adapters})
        tree = source.named(self.tree.model_copy(update={"serving": serving}))
        with local.serve_here(_ENGINE_PORT) as address:
            local.deploy(app.build(tree.model_dump(mode="json")))
            backends = serve.routes(tree, address)["backends"]
            yield {name: Backend.model_validate(backends[name]) for name in models}


@dataclass
class LocalTrial:
    """See `jobs.release.serving.Trial`. The shares stand in the gateway's file."""

    file: Path
    challenger: Backend
    _share: float | None = None
    _in_force_at_s: float = 0.0
    rng: random.Random = field(default_factory=random.SystemRandom)
    users: Users = field(init=False)

    def share(self, challenger: float) -> None:
        """Write the shares; a challenger without any is taken out of the file."""
        if challenger == self._share:
            return
        config = gateway.read(self.file)
        if challenger > 0:
            config = gateway.with_challenger(config, _MODEL, self.challenger, challenger)
        else:
            config = gateway.without_challenger(config, _MODEL)
        self._in_force_at_s = time.monotonic() + _RELOAD_S
        gateway.write(self.file, config)
        self._share = challenger

    def observed(self) -> list[Observation]:
        """See there."""
        return self.users.observed()

    def draw(self) -> str | None:
        """A variant for the next user, by the shares; None while a change may not be in force yet."""
        if self._share is None or time.monotonic() < self._in_force_at_s:
            return None
        return CHALLENGER if self.rng.random() < self._share else CHAMPION


@dataclass(frozen=True)
class LocalServing:
    """See `jobs.release.serving.Serving`."""

    tree: Settings
    engines: Engines

    @contextmanager
    def trial(self, champion: Run, challenger: Run) -> Iterator[LocalTrial]:
        """See there. Raises EnvironmentNotReady if the gateway does not come up."""
        asked, ab = questions(self.tree.data), self.tree.ab
        with (
            self.engines.up({CHAMPION: champion, CHALLENGER: challenger}) as backends,
            tempfile.TemporaryDirectory(prefix="haetsal-") as scratch,
        ):
            file = Path(scratch) / "gateway.yaml"
            only = Variant(name=CHAMPION, backend=CHAMPION)
            models = {_MODEL: Model(variants=(only,))}
            # One attempt: a retry would hide the very errors that are counted here.
            alone = Config(backends={CHAMPION: backends[CHAMPION]}, models=models, retries=Retries(attempts=1))
            gateway.write(file, alone)
            trial = LocalTrial(file, backends[CHALLENGER])
            trial.share(0.0)
            port = local.free_port()
            with local.gateway(file, port):
                trial.users = Users(
                    f"http://{local.HOST}:{port}", _MODEL, asked, trial.draw, ab.simulated_users, ab.answer_tokens
                )
                with trial.users:
                    yield trial
