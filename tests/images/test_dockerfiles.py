"""What can be said of the images without building them."""

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from dockerfile import ROOT, instructions, last_stage

DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
LABELS = {"title", "description", "licenses", "version", "revision", "base.name"}


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def locked(name: str) -> dict[str, str]:
    """Package to version, of a lock file."""
    text = (ROOT / "locks" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", text, re.MULTILINE))


def test_hadolint_finds_nothing(dockerfile):
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed; `make setup` installs it")
    done = subprocess.run([hadolint, "--no-color", dockerfile], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_stage_starts_from_the_one_base(dockerfile):
    sources = [i.text.split()[0] for i in instructions(dockerfile) if i.keyword == "FROM"]
    assert len(sources) == 2
    assert set(sources) == {"${BASE_IMAGE}"}


def test_runs_as_a_numeric_user_that_is_not_root(dockerfile):
    users = [i.text for i in last_stage(dockerfile) if i.keyword == "USER"]
    assert users == ["1000:1000"]  # a number: Kubernetes cannot tell whether a name is root


def test_says_what_it_is(dockerfile):
    (label,) = [i.text for i in last_stage(dockerfile) if i.keyword == "LABEL"]
    assert {name.removeprefix("org.opencontainers.image.") for name in re.findall(r"(\S+)=", label)} >= LABELS


def test_says_how_its_health_is_seen(dockerfile):
    assert [i.text for i in last_stage(dockerfile) if i.keyword == "HEALTHCHECK"] == ["NONE"]


def test_every_installation_is_locked_and_hashed(dockerfile):
    commands = [c for i in instructions(dockerfile) if i.keyword == "RUN" for c in re.split(r"&&|;", i.text)]
    installations = [c for c in commands if "pip install" in c]
    assert installations
    for command in installations:
        assert "--require-hashes" in command, command
    for lock in re.findall(r"locks/[\w.]+", dockerfile.read_text(encoding="utf-8")):
        assert "--hash=sha256:" in (ROOT / lock).read_text(encoding="utf-8"), lock


def test_bytecode_is_not_forbidden(dockerfile):
    assert "PYTHONDONTWRITEBYTECODE" not in dockerfile.read_text(encoding="utf-8")


def test_a_step_stops_at_its_first_failure(dockerfile):
    """Docker's format has a SHELL instruction for it, which OCI's ignores."""
    for step in (i.text for i in instructions(dockerfile) if i.keyword == "RUN"):
        assert "set -eu" in step or ";" not in step, step


def test_what_is_copied_may_enter(dockerfile):
    """Everything else is kept out by .dockerignore, so a new COPY needs a line there."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for copy in (i.text.split() for i in instructions(dockerfile) if i.keyword == "COPY"):
        for source in (word for word in copy[:-1] if not copy[0].startswith("--from")):
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in allowed), source


def test_locks_agree_where_images_share_packages():
    """A run's objects are pickled on one image and read on another."""
    local, gpu, ops = locked("local.txt"), locked("gpu.txt"), locked("ops.txt")
    assert local.items() <= gpu.items()
    assert {name: version for name, version in ops.items() if name in local}.items() <= local.items()


def test_gpu_lock_holds_the_gpu_extra():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["gpu"]
    assert dict(requirement.split("==") for requirement in wanted).items() <= locked("gpu.txt").items()


def test_nothing_of_cuda_is_left_out_by_mistake():
    """The cpu image leaves out what the lock has for CUDA, but for three small libraries that torch really calls."""
    listed = (ROOT / "images/job/no-cuda.txt").read_text().splitlines()
    left_out = {line for line in listed if not line.startswith("#")}
    cuda = {name for name in locked("local.txt") if name.startswith("nvidia-")}
    assert left_out <= locked("local.txt").keys()
    assert cuda - left_out == {"nvidia-cuda-cupti", "nvidia-cuda-runtime", "nvidia-cufile"}
