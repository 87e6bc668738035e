"""Build the images, and send them to a registry: `make images`, `make push`. docker, podman and buildah do it alike."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.cli import main
from jobs.errors import EnvironmentNotReady, RemoteError
from terraform.versions import ROOT, Versions, load_versions

BUILDERS = ("docker", "podman", "buildah")
IMAGES = ("job-cpu", "job-gpu", "ops", "gateway")


@dataclass(frozen=True)
class Image:
    """One image: its full name, the Dockerfile, and the arguments that the Dockerfile declares."""

    name: str
    dockerfile: str
    arguments: dict[str, str]

    def build_command(self, builder: str) -> list[str]:
        """What makes it: in Docker's format whoever builds, because OCI's has no HEALTHCHECK."""
        options = [] if builder == "docker" else ["--format=docker"]
        given = [f"--build-arg={name}={value}" for name, value in self.arguments.items()]
        return [builder, "build", *options, f"--file={self.dockerfile}", f"--tag={self.name}", *given, "."]


def plan(
    image: str, versions: Versions, *, registry: str, tag: str, revision: str, base_image: str | None = None
) -> Image:
    """The image called `image`; all versions are versions.yaml's, and `base_image` replaces the one named there."""
    folder, _, variant = image.partition("-")
    own = {"job": {"VARIANT": variant, "RAY": versions.ray}, "ops": {"POSTGRES": versions.postgres}, "gateway": {}}
    arguments = {
        "BASE_IMAGE": base_image or versions.images["python"],
        "REVISION": revision,
        "VERSION": tag,
        **own[folder],
    }
    return Image(f"{registry.rstrip('/')}/{image}:{tag}", f"images/{folder}/Dockerfile", arguments)


def find_builder(names: Sequence[str] = BUILDERS) -> str:
    """The first of `names` that is installed and answers. Raises EnvironmentNotReady with each one's reason."""
    reasons = []
    for name in names:
        if shutil.which(name) is None:
            reasons.append(f"{name} is not on PATH")
            continue
        answer = subprocess.run([name, "info"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return name
        reasons.append(f"`{name} info` says: {(answer.stderr.strip() or answer.stdout.strip()).splitlines()[-1]}")
    raise EnvironmentNotReady(f"no image can be built here; install docker, podman or buildah. {'; '.join(reasons)}")


def project_version() -> str:
    """The project's version, which is the charts' appVersion and so the tag that they ask for."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def revision() -> str:
    """The commit that is checked out, marked `-dirty` when files differ from it; `unknown` outside a clone."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"


def run(command: list[str]) -> None:
    """Run one builder's command with our terminal. Raises RemoteError."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise RemoteError(f"`{' '.join(command[:2])}` of {command[-1]} failed; its own message is above")


def size(builder: str, name: str) -> str:
    """How large a local image is, uncompressed, as its builder says it."""
    command = [builder, "images", "--format", "{{.Size}}", name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def command() -> None:
    """Command line entry; see the module's docstring."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--image", choices=IMAGES, help="only this one (default: all)")
    options.add_argument("--registry", default="haetsal", help="registry with path, e.g. what `terraform output` names")
    options.add_argument("--tag", default=project_version(), help="default: the project's version")
    options.add_argument("--base-image", help="instead of versions.yaml's images.python")
    options.add_argument("--builder", choices=BUILDERS, help="default: the first that works")
    options.add_argument("--push", action="store_true", help="send what was built to the registry")
    given = options.parse_args()

    versions = load_versions()
    builder = find_builder([given.builder] if given.builder else BUILDERS)
    for name in [given.image] if given.image else IMAGES:
        image = plan(
            name,
            versions,
            registry=given.registry,
            tag=given.tag,
            revision=revision(),
            base_image=given.base_image,
        )
        run(image.build_command(builder))
        print(f"{image.name}: {size(builder, image.name)}")
        if given.push:
            run([builder, "push", image.name])


if __name__ == "__main__":
    main(command)
