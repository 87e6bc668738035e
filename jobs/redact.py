"""Keeps secrets out of everything that is written: events, results, configs.

What counts as a secret: the value of an environment variable whose name says so, `user:password@` in an address, and
tokens with the fixed shape of Hugging Face and AWS keys. A value that is none of these cannot be recognised, which is
why settings refuse credentials in the first place.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "[redacted]"

_SECRET_NAME = re.compile(r"TOKEN(?!IZER)|SECRET|PASSWORD|API_KEY|ACCESS_KEY", re.IGNORECASE)
_NAMES_A_FILE = re.compile(r"_(FILE|PATH|DIR)$", re.IGNORECASE)
_SHAPES = re.compile(r"(?<=://)[^/@\s]+(?=@)|\bhf_[A-Za-z0-9]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
_SHORTEST_SECRET = 8
"""Shorter values ("1", "false", "on") are switches, and masking them would garble ordinary text."""


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` with every recognised secret replaced by `[redacted]`."""
    for value in _secrets(environ):
        text = text.replace(value, MASK)
    return _SHAPES.sub(MASK, text)


def redact_tree(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """A JSON-ready copy of `value`: strings redacted, numbers that JSON cannot hold spelled "nan", "inf", "-inf"."""
    match value:
        case str():
            return redact(value, environ)
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {redact(str(key), environ): redact_tree(item, environ) for key, item in value.items()}
        case list() | tuple():
            return [redact_tree(item, environ) for item in value]
        case _:
            return value


def _secrets(environ: Mapping[str, str]) -> list[str]:
    """Longest first, so that a secret inside another does not leave the rest of the longer one behind."""
    values = {
        value
        for name, value in environ.items()
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name) and not _NAMES_A_FILE.search(name)
    }
    return sorted(values, key=len, reverse=True)
