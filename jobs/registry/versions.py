"""MLflow's registered model: versions, their lineage, and the aliases `champion` and `challenger`.

A version points at the `model/` folder of a run in our own storage. MLflow never loads it: what is loaded is copied by
`fetch`, whose files are compared with the manifest and the manifest with the sha256 that the version was registered
with. (`mlflow.pyfunc.load_model` runs code that a model brings along.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import IntegrityError, UsageError
from jobs.manifest import MANIFEST
from jobs.mlflow_client import connect, explained
from jobs.registry.settings import RegistrySettings
from jobs.runs import Run
from jobs.settings import TrackingSettings
from jobs.storage import Storage
from jobs.tracking import tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHAMPION, CHALLENGER)

_PREFIX = "haetsal."
_MODEL = "model"


@dataclass(frozen=True)
class Lineage:
    """What a version was made of and how it was judged; kept as tags of the version, `haetsal.<name>`."""

    run: str
    """Training run whose `model/` it is."""
    model_sha256: str
    """Of that folder's manifest, which holds the sha256 of each file."""
    base_model_sha256: str
    data_sha256: str
    """Of the rows that it was trained on, in their order."""
    config_sha256: str
    """Of the training run's config.yaml."""
    code: str
    """Commit of the code that trained it."""
    evaluation: str
    """Evaluation run that the gate decided by."""


@dataclass(frozen=True)
class Version:
    """One version of the registered model."""

    number: str
    lineage: Lineage


class Registry:
    """The registered model of one storage and one MLflow. All methods raise RemoteError if MLflow is away."""

    def __init__(self, settings: RegistrySettings, tracking: TrackingSettings, storage: Storage) -> None:
        uri = tracking_uri(tracking, storage)
        if uri is None:
            raise UsageError(f"{storage.root}: set tracking.uri; the registry's SQLite cannot be kept on S3")
        self.uri, self.name, self.storage = uri, settings.model, storage
        self._client: Any = connect(uri, tracking.timeout_s)

    def register(self, lineage: Lineage) -> Version:
        """The version of this model; doing it again gives the same one."""
        for version in self.versions():
            if version.lineage.model_sha256 == lineage.model_sha256:
                return version
        with explained(self.uri):
            if not self._client.search_registered_models(f"name = '{self.name}'"):
                self._client.create_registered_model(self.name)
            made = self._client.create_model_version(
                self.name, f"haetsal:runs/{lineage.run}/{_MODEL}", tags=_tags(vars(lineage))
            )
        return Version(str(made.version), lineage)

    def versions(self) -> list[Version]:
        """All versions that this project registered, oldest first; none if there is no such registered model yet."""
        with explained(self.uri):
            found = list(self._client.search_model_versions(f"name = '{self.name}'"))
        ours = [version for version in map(_version, found) if version is not None]
        return sorted(ours, key=lambda version: int(version.number))

    def version(self, name: str) -> Version:
        """The version of this number or alias. Raises UsageError for one that is not there."""
        known = {version.number: version for version in self.versions()}
        number = self.aliases().get(name) if name in ALIASES else name
        if number in known:
            return known[number]
        there = ", ".join(known) or "none"
        what = f"alias {name!r} is not set" if name in ALIASES else f"has no version or alias {name!r}"
        raise UsageError(
            f"registered model {self.name}: {what}; aliases are {' and '.join(ALIASES)}, versions: {there}"
        )

    def aliases(self) -> dict[str, str]:
        """Version number by alias, as MLflow has them now."""
        with explained(self.uri):
            found = self._client.search_registered_models(f"name = '{self.name}'")
            if not found:
                return {}
            aliases = self._client.get_registered_model(self.name).aliases
        return {alias: str(number) for alias, number in aliases.items() if alias in ALIASES}

    def point(self, alias: str, number: str | None) -> None:
        """Move an alias, or take it away (None). Doing it again changes nothing."""
        with explained(self.uri):
            if number is not None:
                self._client.set_registered_model_alias(self.name, alias, number)
            elif alias in self.aliases():
                self._client.delete_registered_model_alias(self.name, alias)

    def fetch(self, version: Version, local: Path) -> None:
        """Copy the version's files to `local`, which must be new.

        Raises IntegrityError if a file is not what the manifest says, or the manifest not what was registered.
        """
        run = self.verified_run(version)
        run.storage.fetch_tree(run.path(_MODEL), local)

    def verified_run(self, version: Version) -> Run:
        """The training run of a version. Raises IntegrityError if its manifest is not what was registered."""
        run = Run.open(self.storage, version.lineage.run)
        if model_sha256(run) != version.lineage.model_sha256:
            raise IntegrityError(
                f"{run.address(_MODEL)}: is not what {self.name} version {version.number} was registered as; "
                "it was changed since, do not serve it"
            )
        return run


def model_sha256(run: Run) -> str:
    """sha256 of the manifest of the run's model."""
    return hashlib.sha256(run.storage.read(run.path(_MODEL, MANIFEST))).hexdigest()


def _tags(values: Mapping[str, str]) -> dict[str, str]:
    return {f"{_PREFIX}{name}": value for name, value in values.items()}


def _version(found: ModelVersion) -> Version | None:
    given = {name.removeprefix(_PREFIX): value for name, value in found.tags.items() if name.startswith(_PREFIX)}
    try:
        return Version(str(found.version), Lineage(**given))
    except TypeError:
        return None  # registered by somebody else, without our lineage
