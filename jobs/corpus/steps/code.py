"""Where a text is code, which the other steps leave alone."""

from __future__ import annotations

import re
from collections.abc import Callable

_FENCED = re.compile(r"(^```.*?^```[^\S\n]*$)", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(^```.*?^```[^\S\n]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to everything but fenced blocks."""
    return _outside(_FENCED, text, change) if "```" in text else change(text)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to everything but fenced blocks and spans between backticks."""
    return _outside(_CODE, text, change) if "`" in text else change(text)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCED.sub("", text) if "```" in text else text


def _outside(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    parts = pattern.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)
