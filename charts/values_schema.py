"""Write a chart's values.schema.json and the table in its README from its values.yaml, which is the one source.

A key's comment is its documentation: `# -- what it is`. Its type follows from the default, the schema is closed at
every level, and what cannot be inferred stands in a line of its own: `# @ {"minimum": 0}` adds JSON Schema to the key,
`# @ map` says that a mapping is open for further keys whose values all look like the first one's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).resolve().parent
TABLE_START, TABLE_END = "<!-- values -->", "<!-- end of values -->"
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "seq": "array", "map": "object"}


@dataclass(frozen=True)
class Value:
    """One key of a values file."""

    path: tuple[str, ...]
    node: yaml.Node
    description: str
    extra: dict[str, Any]
    is_map: bool


def read(path: Path) -> tuple[yaml.MappingNode, list[Value]]:
    """The tree of a values file, and its keys in order with what their comments say."""
    lines = path.read_text(encoding="utf-8").splitlines()
    root = yaml.compose("\n".join(lines), Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise SystemExit(f"{path}: is not a mapping")
    found: list[Value] = []

    def walk(mapping: yaml.MappingNode, above: tuple[str, ...]) -> None:
        for key, node in mapping.value:
            description, extra, is_map = _comment(lines, key.start_mark.line)
            found.append(Value((*above, key.value), node, description, extra, is_map))
            if isinstance(node, yaml.MappingNode):
                walk(node, (*above, key.value))

    walk(root, ())
    return root, found


def schema(path: Path, dependencies: tuple[str, ...] = ()) -> dict[str, Any]:
    """JSON Schema of a values file. `dependencies` are keys whose schemas are their own charts'."""
    root, values = read(path)
    by_path = {value.path: value for value in values}
    body = _object(root, (), by_path)
    body["properties"] |= {name: {"type": "object"} for name in ("global", *dependencies)}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": path.parent.name, **body}


def table(path: Path) -> str:
    """Markdown table of the documented keys."""
    _, values = read(path)
    rows = ["| value | default | |", "|---|---|---|"]
    for value in values:
        if value.description:
            text = value.description.replace("|", "\\|")
            rows.append(f"| `{'.'.join(value.path)}` | {_default(value.node)} | {text} |")
    return "\n".join(rows)


def outputs(chart: Path) -> dict[Path, str]:
    """The files of a chart that are generated, and what belongs into them."""
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    names = tuple(entry.get("alias", entry["name"]) for entry in metadata.get("dependencies", ()))
    values, readme = chart / "values.yaml", chart / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(TABLE_START)
    after = rest.split(TABLE_END)[1]
    text = f"{before}{TABLE_START}\n{table(values)}\n{TABLE_END}{after}"
    return {chart / "values.schema.json": json.dumps(schema(values, names), indent=2) + "\n", readme: text}


def _object(mapping: yaml.MappingNode, path: tuple[str, ...], by_path: dict[tuple[str, ...], Value]) -> dict[str, Any]:
    properties = {key.value: _of(by_path[*path, key.value], by_path) for key, _ in mapping.value}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _of(value: Value, by_path: dict[tuple[str, ...], Value]) -> dict[str, Any]:
    described = {"description": value.description} if value.description else {}
    if isinstance(value.node, yaml.MappingNode) and value.node.value and "additionalProperties" not in value.extra:
        body = _object(value.node, value.path, by_path)
        if value.is_map:
            first = next(iter(body["properties"].values()))
            body = {"type": "object", "additionalProperties": first | {"required": list(first["properties"])}}
        return described | body | value.extra
    kind = value.node.tag.rsplit(":", 1)[1]
    return described | ({"type": _TYPES[kind]} if kind in _TYPES else {}) | value.extra


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any], bool]:
    comment: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    extra: dict[str, Any] = {}
    is_map = False
    words: list[str] = []
    for text in comment:
        if text == "@ map":
            is_map = True
        elif text.startswith("@ "):
            extra |= json.loads(text.removeprefix("@ "))
        elif text.startswith("-- ") or words:
            words.append(text.removeprefix("-- "))
    return " ".join(words), extra, is_map


def _default(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode) and node.value:
        return ""
    text = json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)
    return f"`{text}`" if len(text) < 60 else "see values.yaml"


if __name__ == "__main__":
    for file in (file for name in sys.argv[1:] for file in outputs(CHARTS / name).items()):
        file[0].write_text(file[1], encoding="utf-8")
