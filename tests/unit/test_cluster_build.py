"""Where the control plane's programs are kept, and what is said when they cannot be built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.errors import EnvironmentNotReady
from terraform.versions import load_versions
from tests.cluster import build


def filled(root: Path) -> Path:
    for name, programs in build.PROGRAMS.items():
        folder = build.folder(build.TOOLS / name, root)
        folder.mkdir(parents=True)
        for program in programs:
            (folder / program).touch()
    return root


def test_another_pin_is_another_place(tmp_path: Path) -> None:
    module = Path(shutil.copytree(build.TOOLS / "controllers", tmp_path / "controllers"))
    before = build.folder(module, tmp_path)
    with (module / "go.sum").open("a") as file:
        file.write("another line\n")
    assert build.folder(module, tmp_path) != before


def test_what_is_there_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    build.build(filled(tmp_path))
    assert build.missing(tmp_path) == {}


def test_without_go_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (build.folder(build.TOOLS / "controllers", filled(tmp_path)) / "kwok").unlink()
    with pytest.raises(EnvironmentNotReady, match="kwok: to be built once, and there is no go; install"):
        build.build(tmp_path)


def test_module_that_is_refused_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("go") is None:
        pytest.skip("there is no go")
    for name, value in {"GOPROXY": "off", "GOMODCACHE": str(tmp_path / "modules"), "GOFLAGS": "-modcacherw"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentNotReady) as refused:
        build.build(tmp_path / "cache")
    assert "a Go module cannot be had" in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists(), "nothing is compiled before all modules are there"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({"KUBECONFIG": "file"}, "KUBECONFIG"), ({}, "processes"), ({"KUBECONFIG": ""}, "processes")],
)
def test_where_a_cluster_comes_from(environ: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert build.source(environ) == wanted


def test_versions_are_the_platforms() -> None:
    versions = load_versions()
    assert build.version(build.TOOLS / "controllers", build.KUBERAY) == versions.charts["kuberay-operator"].version
    assert build.version(build.TOOLS / "kubernetes", "k8s.io/kubernetes").startswith(f"{versions.kubernetes}.")
