"""Spaces, empty lines and laughter."""

from __future__ import annotations

import re
from functools import cache

from jobs.corpus.steps.code import outside_fences

_RAGGED = ("  ", "\t", "\n ", " \n", "\n\n\n")
_JAMO = re.compile("[ㄱ-ㅣ]")
_SPACES = re.compile("  +")
_EMPTY_LINES = re.compile("\n{3,}")


def single_spaced(text: str) -> str:
    """One space between words, none at the ends of lines, at most one empty line. Fenced code keeps its own."""
    if any(sign in text for sign in _RAGGED):
        text = outside_fences(text, _single_spaced)
    return text.strip(" \t\n")


def _single_spaced(text: str) -> str:
    text = _SPACES.sub(" ", text.replace("\t", " ")).replace(" \n", "\n").replace("\n ", "\n")
    return _EMPTY_LINES.sub("\n\n", text)


def squeezed(text: str, longest: int) -> str:
    """The text with runs of one lone jamo (ㅋㅋㅋㅋ, ㅠㅠㅠ) cut to `longest`.

    From soynlp by way of EleutherAI's dps, which squeezes every letter and digit: 1000 would become 100. Only jamo
    are laughter.
    """
    return _run(longest).sub(r"\1" * longest, text) if _JAMO.search(text) else text


@cache
def _run(longest: int) -> re.Pattern[str]:
    return re.compile(f"([ㄱ-ㅣ])\\1{{{longest},}}")
