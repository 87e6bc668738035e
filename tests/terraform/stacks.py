"""Reading synthesised Terraform JSON."""

import importlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

REFERENCE = re.compile(
    r"\b(data\.)?((?:aws|terraform|helm)_[a-z0-9_]+)\.([A-Za-z0-9_-]+)((?:\[[0-9]+\])?(?:\.[a-z][a-z0-9_]*)?)"
)


@dataclass(frozen=True)
class Stack:
    """One cdk.tf.json."""

    environment: str
    name: str
    path: Path
    json: dict[str, Any]

    @classmethod
    def read(cls, environment: str, path: Path) -> "Stack":
        return cls(environment, path.parent.name, path, json.loads(path.read_text()))

    def all(self, kind: str) -> dict[str, Any]:
        """Resources of one Terraform type, by their name in the JSON."""
        return self.json.get("resource", {}).get(kind, {})

    def resources(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (kind, name, body) for kind, named in self.json.get("resource", {}).items() for name, body in named.items()
        ]

    def strings(self) -> list[str]:
        """Every string value, however deep; keys under "//" are cdktn's own notes."""
        return list(_strings(self.json))


def _strings(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "//":
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def expressions(text: str) -> list[str]:
    """What is inside ${...}; our expressions hold no braces."""
    return re.findall(r"\$\{([^}]*)\}", text)


@cache
def binding(kind: str, data: bool) -> type:
    """The generated class of a Terraform type; its properties are the provider schema's attributes."""
    provider, _, rest = kind.partition("_")
    prefix = f"data_{provider}_" if data else ""
    module = importlib.import_module(f"cdktn_provider_{provider}.{prefix}{rest}")
    for value in vars(module).values():
        if isinstance(value, type) and getattr(value, "TF_RESOURCE_TYPE", None) == kind:
            return value
    raise LookupError(kind)


def statements(document: str) -> list[dict[str, Any]]:
    return json.loads(document)["Statement"]
