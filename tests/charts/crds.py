"""Custom resources' schemas, from the very modules that define them, made as strict as the API server is."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

# Group: module, its version, folder of the CRDs in it, and the variable that names a folder to take them from instead.
MODULES = {
    "ray.io": ("github.com/ray-project/kuberay/ray-operator", None, "config/crd/bases", "KUBERAY_CRDS"),
    "kueue.x-k8s.io": ("sigs.k8s.io/kueue", "v0.19.2", "config/components/crd/bases", "KUEUE_CRDS"),
    "monitoring.coreos.com": (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.89.0",
        "example/prometheus-operator-crd",
        "PROMETHEUS_OPERATOR_CRDS",
    ),
}
FILES = {
    "ray.io": ("ray.io_rayclusters", "ray.io_rayjobs", "ray.io_rayservices"),
    "kueue.x-k8s.io": tuple(f"kueue.x-k8s.io_{kind}" for kind in ("clusterqueues", "localqueues", "resourceflavors")),
    "monitoring.coreos.com": ("monitoring.coreos.com_podmonitors", "monitoring.coreos.com_prometheusrules"),
}


@cache
def folder(group: str, kuberay: str) -> Path:
    """Where a group's CRDs are; Go keeps modules in its own cache. Skips where they cannot be had."""
    module, version, inside, variable = MODULES[group]
    if given := os.environ.get(variable):
        return Path(given)
    if shutil.which("go") is None:
        pytest.skip(f"the schemas of {group} come as a Go module, and there is no go; {variable} can name a folder")
    wanted = f"{module}@{version or f'v{kuberay}'}"
    done = subprocess.run(
        ["go", "mod", "download", "-json", wanted], capture_output=True, text=True, timeout=120, check=False
    )
    answer = json.loads(done.stdout or "{}")
    if "Dir" not in answer:
        pytest.skip(f"{wanted}: {answer.get('Error') or done.stderr.strip()}; {variable} can name a folder")
    return Path(answer["Dir"]) / inside


@cache
def validators(group: str, kuberay: str) -> dict[tuple[str, str], jsonschema.Draft7Validator]:
    """Validators by apiVersion and kind, for the kinds that our charts make."""
    found = {}
    for name in FILES[group]:
        text = (folder(group, kuberay) / f"{name}.yaml").read_text(encoding="utf-8")
        spec = yaml.load(text, Loader=yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{group}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft7Validator(schema)
    return found


def strict(schema: Any) -> Any:
    """A structural schema as JSON Schema that refuses what the API server would prune or refuse."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    # Below `properties`, keys are names of fields, not words of the schema.
    result = {key: strict(value) for key, value in schema.items() if key not in ("default", "nullable", "properties")}
    if "properties" in schema:
        result["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result.pop("anyOf", None)
        return result | {"type": ["integer", "string"]}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        result["additionalProperties"] = False
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        result["type"] = [schema["type"], "null"]
    return result
