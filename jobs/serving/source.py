"""What is served: from the name that a person gives to a base model and adapters over it, every byte checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs import models, trained
from jobs.errors import IntegrityError, UsageError
from jobs.evaluation import candidate
from jobs.manifest import MANIFEST, verify_manifest
from jobs.registry.settings import RegistrySettings
from jobs.registry.versions import Registry
from jobs.settings import Settings, from_tree
from jobs.storage import Storage

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_ALIAS = re.compile(r"models:/(?P<model>[a-z0-9][a-z0-9-]{0,62})@(?P<alias>[^@/]+)")


def subject(tree: Settings, name: str | None) -> Settings:
    """`tree` with `model` and `serving` set to what `name` means: a run id, a registry alias, a folder, `s3://…` or a
    hub id; none is the training run that finished last.

    Raises UsageError, EnvironmentNotReady and IntegrityError as `jobs.evaluation.candidate.find` does.
    """
    address = _resolved(tree, name) if name else trained.find(Storage(tree.storage.root), None).id
    with candidate.find(Storage(tree.storage.root), address, tree) as found:
        model = found.weights.settings
        if found.weights.adapter is None and found.origin is not None:  # a run that trained all weights
            run = trained.find(Storage(tree.storage.root), address)
            model = model.model_copy(update={"source": run.address("model")})
        adapters = dict(tree.serving.adapters)
        if found.weights.adapter is not None:
            adapters = {_short(name or address): address} | adapters
    serving = tree.serving.model_dump() | {"adapters": adapters}
    return named(from_tree(tree.model_dump() | {"model": model.model_dump(), "serving": serving}, "what is served"))


def named(tree: Settings) -> Settings:
    """`tree` with a name for the base model: the last part of its address, if there is none yet."""
    name = tree.serving.name or _short(tree.model.source)
    return tree.model_copy(update={"serving": tree.serving.model_copy(update={"name": name})})


def base(tree: Settings) -> Path:
    """Folder of the base model, on this machine. A folder with a manifest must match it."""
    folder = models.resolve(tree.model)
    if (folder / MANIFEST).is_file():
        verify_manifest(folder)
    return folder


@contextmanager
def adapter(tree: Settings, base_sha256: str, address: str) -> Iterator[Path]:
    """The adapter at `address` as a folder on this machine, for as long as the context lasts.

    Raises UsageError if it is none, IntegrityError if it is damaged or belongs to another base than `base_sha256`.
    """
    with candidate.find(Storage(tree.storage.root), _resolved(tree, address), tree) as found:
        folder = found.weights.adapter
        if folder is None:
            raise UsageError(f"serving.adapters: {address} is a whole model, not an adapter; serve it with MODEL=")
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise UsageError(f"serving.adapters: {address} holds no {ADAPTER_WEIGHTS}; pickled weights are not loaded")
        if (folder / MANIFEST).is_file():
            verify_manifest(folder)
        if models.identity(found.weights.base) != base_sha256:
            raise IntegrityError(f"{address}: was trained on {found.weights.settings.source}, which is not what serves")
        yield folder


def _resolved(tree: Settings, address: str) -> str:
    """The run behind a registry alias; anything else as it is."""
    if not address.startswith("models:/"):
        return address
    if not (match := _ALIAS.fullmatch(address)):
        raise UsageError(f"{address}: a registered model is written models:/<name>@<alias>")
    registry = Registry(RegistrySettings(model=match["model"]), tree.tracking, Storage(tree.storage.root))
    return registry.verified_run(registry.version(match["alias"])).id


def _short(address: str) -> str:
    """A name for the model at `address`: its last part, without the ending of a weights file."""
    last = re.split(r"[/@]", address.rstrip("/"))[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", re.sub(r"(\.Q\w+)?\.gguf$", "", last)).lstrip("._-") or "model"
