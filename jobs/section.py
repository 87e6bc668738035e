"""What sections of the settings are made of. A job's own stand beside its code; `jobs/settings.py` joins them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_CREDENTIALS_IN_URL = re.compile(r"://[^/@\s]+@")


def _no_credentials(value: str) -> str:
    if _CREDENTIALS_IN_URL.search(value):
        raise ValueError("must not hold credentials; pass them by environment variable, never in a config file")
    return value


Address = Annotated[str, Field(min_length=1), AfterValidator(_no_credentials)]
"""A path, `file://`, `s3://` or `http(s)://` address without credentials in it."""


class Uploaded:
    """Marks a field that names input: where a run leaves this machine, what is local goes along (jobs/cluster)."""


InputAddress = Annotated[Address, Uploaded()]
"""An address that is read from: file, folder or glob of this machine, or remote."""


class Section(BaseModel):
    """Base of every node of the tree: frozen, closed against unknown keys, finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
