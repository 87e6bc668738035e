"""Reading evaluation files: every line is checked before any model is loaded."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from jobs.dataset.text_encoding import decode
from jobs.errors import UsageError
from jobs.storage import NotFound, Storage

Text = Annotated[str, Field(min_length=1)]


class Identified(BaseModel):
    """A line of an evaluation file."""

    id: Text


Line = TypeVar("Line", bound=Identified)


def read_file(address: str, key: str) -> bytes:
    """The content of one file on disk or S3. Raises UsageError naming the setting if it is not there or empty."""
    parent, _, name = address.rpartition("/")
    try:
        data = Storage(parent or ".").read(name)
    except NotFound:
        raise UsageError(f"{key}: {address}: no such file") from None
    if not data.strip():
        raise UsageError(f"{key}: {address}: the file is empty")
    return data


def parse_lines(data: bytes, name: str, kind: type[Line]) -> list[Line]:
    """One `kind` per line of JSON. Raises UsageError naming line and key of the first that is not one."""
    items: list[Line] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(decode(data, name).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = kind.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise UsageError(f"{name}:{number}: broken JSON: {error.msg} at character {error.pos}") from None
        except ValidationError as error:
            raise UsageError(f"{name}:{number}: {_explain(dict(error.errors()[0]), kind)}") from None
        if item.id in lines:
            raise UsageError(f"{name}:{number}: id {item.id!r} stands in line {lines[item.id]} already")
        lines[item.id] = number
        items.append(item)
    return items


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def _explain(detail: dict[str, Any], kind: type[BaseModel]) -> str:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}; the keys are {', '.join(kind.model_fields)}"
    if detail["type"] == "missing":
        return f"the key {key} is missing; the keys are {', '.join(kind.model_fields)}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key}: {message} (got {detail['input']!r})" if key else message
