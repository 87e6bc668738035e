"""Storage on a disk: addresses, atomic files and directories, and clear refusals."""

from pathlib import Path

import pytest

from jobs.errors import IntegrityError, UsageError
from jobs.storage import AlreadyExists, NotFound, Storage, StorageError


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter.safetensors").write_bytes(b"weights" * 1000)
    (folder / "sub" / "tokenizer.json").write_text("{}")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_root_is_absolute_whatever_its_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert Storage("output").root == Storage(f"file://{tmp_path}/output").root == str(tmp_path / "output")
    assert Storage("s3://bucket/prefix/").address("runs/a") == "s3://bucket/prefix/runs/a"


@pytest.mark.parametrize("root", ["gs://bucket", "s3://", "http://host/x"])
def test_unusable_root_is_refused(root: str) -> None:
    with pytest.raises(UsageError, match=r"storage\.root"):
        Storage(root)


@pytest.mark.parametrize("rel", ["../outside", "/etc/passwd", "a/../../b"])
def test_path_cannot_leave_the_root(storage: Storage, rel: str) -> None:
    with pytest.raises(UsageError, match="must be a path below"):
        storage.write(rel, b"")


def test_files_are_written_read_listed_and_deleted(storage: Storage) -> None:
    storage.write("a/b.txt", b"old")
    storage.write("a/b.txt", b"new")
    storage.write("a/c/d.txt", b"")

    assert storage.read("a/b.txt") == b"new"
    assert storage.list("a") == ["b.txt", "c"]
    assert storage.list("nowhere") == []
    assert storage.exists("a/c")
    storage.delete_tree("a")
    storage.delete_tree("a")
    assert not storage.exists("a/b.txt")
    with pytest.raises(NotFound, match=r"b\.txt"):
        storage.read("a/b.txt")


def test_create_does_not_replace(storage: Storage) -> None:
    storage.create("once", b"first")

    with pytest.raises(AlreadyExists, match="once: is there already"):
        storage.create("once", b"second")
    assert storage.read("once") == b"first"
    assert storage.list() == ["once"]


def test_published_tree_comes_back_verified(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.publish_tree(model, "runs/r/model")
    storage.fetch_tree("runs/r/model", tmp_path / "copy")

    assert names(tmp_path / "copy") == ["adapter.safetensors", "manifest.json", "sub/tokenizer.json"]
    assert storage.list("runs/r") == ["model"]


def test_publishing_again_replaces_all_of_it(storage: Storage, model: Path) -> None:
    storage.publish_tree(model, "model")
    (model / "adapter.safetensors").rename(model / "renamed.safetensors")
    storage.publish_tree(model, "model")

    assert names(storage.local_path("model")) == ["manifest.json", "renamed.safetensors", "sub/tokenizer.json"]


def test_damaged_tree_is_refused_and_nothing_is_left_of_it(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.publish_tree(model, "model")
    storage.write("model/adapter.safetensors", b"Weights" * 1000)

    with pytest.raises(IntegrityError, match=r"adapter\.safetensors: content does not match"):
        storage.fetch_tree("model", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_tree_without_manifest_does_not_exist(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.upload_tree(model, "model")

    with pytest.raises(NotFound, match="never completed"):
        storage.fetch_tree("model", tmp_path / "copy")


def test_trees_are_copied_both_ways(storage: Storage, model: Path, tmp_path: Path) -> None:
    storage.upload_tree(model, "tree")
    storage.download_tree("tree", tmp_path / "copy")

    assert names(tmp_path / "copy") == names(model)
    with pytest.raises(NotFound, match="nowhere"):
        storage.download_tree("nowhere", tmp_path / "copy")


def test_file_in_the_place_of_a_folder_is_named(storage: Storage) -> None:
    storage.write("file", b"")

    with pytest.raises(StorageError, match="file/below: cannot write: a file is in the place"):
        storage.write("file/below", b"")
