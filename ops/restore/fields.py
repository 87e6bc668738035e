"""Comparison of nested objects, and what a cluster's schema knows of them."""

from __future__ import annotations

from typing import Any

_ABSENT = object()


def differences(wanted: Any, live: Any, path: str = "") -> list[str]:
    """Paths at which `live` lacks or contradicts `wanted`. More than wanted is fine: servers add defaults."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [
            line
            for key, value in wanted.items()
            for line in differences(value, live.get(key, _ABSENT), f"{path}.{key}".lstrip("."))
        ]
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        return [
            line
            for place, (one, other) in enumerate(zip(wanted, live, strict=True))
            for line in differences(one, other, f"{path}[{place}]")
        ]
    if wanted == live or (live is _ABSENT and wanted in ({}, [], None)):
        return []
    return [f"{path}: {_short(live)} -> {_short(wanted)}"]


def prune(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Remove from `value` what a structural schema does not know, as an API server would; returns the paths."""
    if not schema or schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        return []
    if isinstance(value, list):
        found = [prune(item, schema.get("items", {}), f"{path}[{place}]") for place, item in enumerate(value)]
        return [line for lines in found for line in lines]
    if not isinstance(value, dict):
        return []
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    dropped = []
    for key in list(value):
        if key in properties:
            dropped += prune(value[key], properties[key], f"{path}.{key}")
        elif isinstance(others, dict):
            dropped += prune(value[key], others, f"{path}.{key}")
        elif not others:
            del value[key]
            dropped.append(f"{path}.{key}")
    return dropped


def _short(value: Any) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
