"""A directory is what its manifest says, or it is refused by the name of the file that differs."""

import json
from pathlib import Path

import pytest

from jobs.errors import IntegrityError
from jobs.manifest import MANIFEST, verify_manifest, write_manifest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights.safetensors").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "sub" / "설정.json").write_text("{}")
    write_manifest(tmp_path)
    return tmp_path


def test_untouched_directory_passes(directory: Path) -> None:
    verify_manifest(directory)

    assert set(json.loads((directory / MANIFEST).read_bytes())["files"]) == {"weights.safetensors", "sub/설정.json"}


def test_flipped_bit_is_found(directory: Path) -> None:
    data = bytearray((directory / "weights.safetensors").read_bytes())
    data[1000] ^= 1
    (directory / "weights.safetensors").write_bytes(data)

    with pytest.raises(IntegrityError, match=r"weights\.safetensors: content does not match"):
        verify_manifest(directory)


def test_cut_off_file_is_found(directory: Path) -> None:
    with (directory / "weights.safetensors").open("rb+") as file:
        file.truncate(100)

    with pytest.raises(IntegrityError, match=r"weights\.safetensors: 100 bytes where .* says 16384"):
        verify_manifest(directory)


def test_missing_file_is_found(directory: Path) -> None:
    (directory / "sub" / "설정.json").unlink()

    with pytest.raises(IntegrityError, match=r"설정\.json: missing"):
        verify_manifest(directory)


def test_directory_without_manifest_is_incomplete(directory: Path) -> None:
    (directory / MANIFEST).unlink()

    with pytest.raises(IntegrityError, match="never completed"):
        verify_manifest(directory)


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": 1}}', '{"files": {"a": {"bytes": 1}}}'])
def test_what_is_not_a_manifest_is_refused(directory: Path, text: str) -> None:
    (directory / MANIFEST).write_text(text)

    with pytest.raises(IntegrityError, match="not a manifest"):
        verify_manifest(directory)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_manifest_cannot_name_files_outside(directory: Path, name: str) -> None:
    (directory / MANIFEST).write_text(json.dumps({"files": {name: {"bytes": 1, "sha256": "0"}}}))

    with pytest.raises(IntegrityError, match="outside its directory"):
        verify_manifest(directory)
