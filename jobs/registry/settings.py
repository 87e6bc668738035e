"""The section `registry` of the settings."""

from __future__ import annotations

from pydantic import Field

from jobs.section import Section


class RegistrySettings(Section):
    """Where releases are kept: a registered model of the MLflow that `tracking.uri` names, and its promotion log in
    `<storage.root>/registry/<model>/`."""

    model: str = Field("haetsal", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Name of the registered model."""
