"""What can be checked about an answer without understanding it; `jobs/data/eval/FORMAT.md` defines every check."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_SYLLABLE = re.compile("[가-힣]")
_HANGUL = re.compile("[가-힣\u1100-\u11ff\u3130-\u318f]")
_BULLET = re.compile(r"\s*(?:[-*•]|\d+\.)\s")
_FENCED = re.compile(r"```[^\n]*\n(.*?)\n?```", re.DOTALL)
_GRAM = 4

Count = Annotated[int, Field(ge=0)]


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ShareCheck(_Check):
    """Compares a share of the answer."""

    type: Literal["min_hangul_share", "max_repetition"]
    value: Annotated[float, Field(ge=0, le=1, strict=False)]


class CountCheck(_Check):
    """Compares a number of things in the answer."""

    type: Literal["min_syllables", "max_syllables", "line_count", "bullet_count"]
    value: Count


class TextCheck(_Check):
    """Looks for a text in the answer."""

    type: Literal["contains", "not_contains", "starts_with", "ends_with"]
    value: Annotated[str, Field(min_length=1)]


class RegexCheck(_Check):
    """Looks for a pattern in the answer."""

    type: Literal["regex"]
    value: str

    @model_validator(mode="after")
    def _compiles(self) -> RegexCheck:
        try:
            re.compile(self.value)
        except re.error as error:
            raise ValueError(f"value is not a regular expression: {error}") from None
        return self


class KeysCheck(_Check):
    """Wants a JSON object."""

    type: Literal["json_keys"]
    value: list[str]


Check = Annotated[ShareCheck | CountCheck | TextCheck | RegexCheck | KeysCheck, Field(discriminator="type")]


def holds(check: Check, answer: str) -> bool:
    """Whether a normalised answer (see `normalised`) passes."""
    return _HOLDS[check.type](answer, check.value)


def normalised(answer: str) -> str:
    """NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", answer).strip()


def hangul_share(text: str) -> float:
    """Hangul (syllables and jamo) ÷ characters that are not white space; 0 for an empty text."""
    visible = "".join(text.split())
    return len(_HANGUL.findall(visible)) / len(visible) if visible else 0.0


def repetition(text: str) -> float:
    """1 − distinct ÷ all character 4-grams, runs of white space read as one space; 0 for under four characters."""
    text = re.sub(r"\s+", " ", text)
    grams = [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _keys(text: str) -> set[str] | None:
    fenced = _FENCED.fullmatch(text)
    try:
        parsed = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):  # a model that repeats brackets nests deeper than the parser goes
        return None
    return set(parsed) if isinstance(parsed, dict) else None


_HOLDS: dict[str, Callable[[str, Any], bool]] = {
    "min_hangul_share": lambda answer, least: hangul_share(answer) >= least,
    "max_repetition": lambda answer, most: repetition(answer) <= most,
    "min_syllables": lambda answer, least: len(_SYLLABLE.findall(answer)) >= least,
    "max_syllables": lambda answer, most: len(_SYLLABLE.findall(answer)) <= most,
    "line_count": lambda answer, count: len(_lines(answer)) == count,
    "bullet_count": lambda answer, count: sum(bool(_BULLET.match(line)) for line in _lines(answer)) == count,
    "contains": lambda answer, part: part in answer,
    "not_contains": lambda answer, part: part not in answer,
    "starts_with": lambda answer, part: answer.startswith(part),
    "ends_with": lambda answer, part: answer.endswith(part),
    "regex": lambda answer, pattern: re.search(pattern, answer) is not None,
    "json_keys": lambda answer, keys: _keys(answer) == set(keys),
}
