"""Read a YAML file into a pydantic model; a wrong file is one line that names the file, the line and the key."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import UsageError


class Model(BaseModel):
    """Base of every file's model: closed against unknown keys, and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=Model)


def load_document(path: Path, model: type[M], context: dict[str, Any] | None = None) -> M:
    """Return `path` as a `model`; `context` reaches the model's validators. Raises UsageError with one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise UsageError(f"{path} does not exist; there are: {known}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8; save it as UTF-8") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected keys and values at the top level")
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        raise UsageError("\n".join(_line(path, root, model, e) for e in error.errors())) from None


def _line(path: Path, root: yaml.Node | None, model: type[BaseModel], error: ErrorDetails) -> str:
    keys = [part for part in error["loc"] if isinstance(part, int) or not part.startswith("function-")]
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(keys[-1]), _fields(model, keys[:-1]), n=1)
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "; remove it")
    name = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys).removeprefix(".")
    return f"{path}:{_line_number(root, keys)}: {name + ': ' if name else ''}{message}"


def _line_number(node: yaml.Node | None, keys: list[int | str]) -> int:
    """1-based line of the deepest part of `keys` that is in the file (a missing key is at its parent)."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _fields(model: type[BaseModel], keys: list[int | str]) -> list[str]:
    """Field names of the model that sits at `keys` below `model`."""
    here: type[BaseModel] | None = model
    for key in keys:
        if isinstance(key, str) and here is not None and key in here.model_fields:
            here = _model_in(here.model_fields[key].annotation)
    return list(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = getattr(annotation, "__args__", ())
    return next((found for found in map(_model_in, arguments) if found), None)
