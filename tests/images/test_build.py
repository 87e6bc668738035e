"""`make images`: names, arguments and builders. What the builders make of it is in test_built.py."""

import os
import re
import subprocess
import sys

import pytest
from dockerfile import ROOT, instructions

from images import build
from jobs.errors import EnvironmentNotReady
from terraform.versions import load_versions

VERSIONS = load_versions()


def planned(name: str, **given: str) -> build.Image:
    return build.plan(name, VERSIONS, **{"registry": "haetsal", "tag": "1.2.3", "revision": "abc"} | given)


def command(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "images.build", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", build.IMAGES)
def test_arguments_are_those_that_the_dockerfile_declares(name):
    image = planned(name)
    declared = {i.text for i in instructions(ROOT / image.dockerfile) if i.keyword == "ARG"}
    assert declared == image.arguments.keys()


def test_versions_are_those_of_the_one_file():
    assert planned("job-gpu").arguments["RAY"] == VERSIONS.ray
    assert planned("job-gpu").arguments["VARIANT"] == "gpu"
    assert planned("ops").arguments["POSTGRES"] == VERSIONS.postgres
    assert planned("ops").arguments["BASE_IMAGE"] == VERSIONS.images["python"]


def test_base_image_and_registry_can_be_replaced():
    image = planned("job-cpu", base_image="mirror/python:3.11", registry="host:5000/team/")
    assert image.name == "host:5000/team/job-cpu:1.2.3"
    assert "--build-arg=BASE_IMAGE=mirror/python:3.11" in image.build_command("podman")


@pytest.mark.parametrize("builder", build.BUILDERS)
def test_every_builder_knows_the_options(builder):
    """Those that are installed are asked; a daemon is not needed for that."""
    try:
        answer = subprocess.run([builder, "build", "--help"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{builder} is not installed")
    if answer.returncode != 0:
        pytest.skip(f"{builder} build does not work here: {answer.stderr.strip()}")
    used = {re.match(r"--[a-z-]+", part)[0] for part in planned("ops").build_command(builder) if part[:2] == "--"}
    assert used <= set(re.findall(r"--[a-z-]+", answer.stdout))


def test_no_builder_is_one_line_and_exit_code_3(tmp_path):
    done = command(path=str(tmp_path))
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    for name in build.BUILDERS:
        assert f"{name} is not on PATH" in line


def test_a_builder_that_does_not_answer_is_passed_over(tmp_path, monkeypatch):
    """As docker's client without its daemon, which many machines have."""
    for name, code in {"docker": 1, "podman": 0}.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit {code}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.find_builder() == "podman"
    with pytest.raises(EnvironmentNotReady, match="docker info` says: Cannot connect"):
        build.find_builder(["docker", "buildah"])


def test_an_unknown_image_names_the_known_ones():
    done = command("--image", "jobs", path=os.environ["PATH"])
    assert done.returncode == 2
    assert "job-cpu" in done.stderr
