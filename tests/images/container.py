"""Run what is in an image as Kubernetes' "restricted" level runs it, by no more than buildah, unshare and chroot.

The root is read-only, the user is the image's, privileges cannot grow, and /tmp and /scratch are the only places to
write to. A container engine is not needed, so this also works inside a container.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START = """
set -eu
root=$1 scratch=$2 tmp=$3 user=$4 workdir=$5; shift 5
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$scratch" "$root/scratch"
mount --bind "$tmp" "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" \
  /usr/bin/env --ignore-environment --chdir="$workdir" "$@"
"""


def buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Container:
    """A mounted image and the folder on this machine that holds what it may write."""

    image: str
    root: Path
    config: dict[str, Any]
    writable: Path

    def run(self, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `command` with the image's environment, user and working directory."""
        arguments = [str(self.root), str(self.writable / "scratch"), str(self.writable / "tmp")]
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _START, "sh"]
        return subprocess.run(
            [*isolated, *arguments, self.config["User"], self.config["WorkingDir"], *self.config["Env"], *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def output(self, *command: str, timeout_s: float = 60) -> str:
        """What `command` prints; fails if it fails."""
        done = self.run(*command, timeout_s=timeout_s)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()


def mounted(image: str, writable: Path) -> tuple[str, Container]:
    """The name of a new buildah container of `image`, to be removed in the end, and how to run commands in it."""
    name = buildah("from", "--pull-never", image)
    for folder in ("scratch", "tmp"):
        (writable / folder).mkdir()
        (writable / folder).chmod(0o777)
    config = json.loads(buildah("inspect", "--type=image", image))["Docker"]["config"]
    return name, Container(image, Path(buildah("mount", name)), config, writable)
