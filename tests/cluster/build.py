"""The programs of a control plane, built once from the Go modules that tools/ pins, into a cache outside the tree.

    python -m tests.cluster.build        # build what is missing, say what, print nothing if all is there

Kubernetes and etcd are one module. The KubeRay operator and KWOK are another: they are written against the next
minor version of Kubernetes' libraries, which may not get into the programs of this one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.cli import main
from jobs.errors import EnvironmentNotReady

TOOLS = Path(__file__).parent / "tools"
PROGRAMS = {
    "kubernetes": {
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    },
    "controllers": {
        "kuberay-operator": "github.com/ray-project/kuberay/ray-operator",
        "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    },
}
"""By module in tools/, program and its package."""
KUBERAY = PROGRAMS["controllers"]["kuberay-operator"]


def cache(environ: dict[str, str]) -> Path:
    """Where programs are kept."""
    root = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "haetsal" / "control-plane"


def folder(module: Path, root: Path) -> Path:
    """Where the programs of one module are kept: another go.mod or go.sum is another place."""
    pins = b"".join((module / name).read_bytes() for name in ("go.mod", "go.sum"))
    return root / f"{module.name}-{hashlib.sha256(pins).hexdigest()[:16]}"


def missing(root: Path) -> dict[str, list[str]]:
    """Programs that are still to be built, by module."""
    found = {
        name: [program for program in programs if not (folder(TOOLS / name, root) / program).is_file()]
        for name, programs in PROGRAMS.items()
    }
    return {name: programs for name, programs in found.items() if programs}


def version(module: Path, path: str) -> str:
    """Version that a module's go.mod requires of another."""
    found = re.search(rf"^\s*(?:require )?{re.escape(path)} v(\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{module}/go.mod does not require {path}"
    return found[1]


def search_path(root: Path) -> str:
    """Folders of all programs, as PATH has them."""
    return os.pathsep.join(str(folder(TOOLS / name, root)) for name in PROGRAMS)


def build(root: Path) -> None:
    """Build what is missing. Raises EnvironmentNotReady without Go, or where a module cannot be had."""
    left = missing(root)
    if not left:
        return
    if shutil.which("go") is None:
        raise EnvironmentNotReady(
            f"{', '.join(program for programs in left.values() for program in programs)}: to be built once, and there "
            "is no go; install Go 1.26, or Docker for kind, or set KUBECONFIG to an empty cluster"
        )
    for name in left:  # all of them first: what the module proxy refuses is known before an hour of compiling
        _download(TOOLS / name)
    for name, programs in left.items():
        for program in programs:
            _build(TOOLS / name, program, PROGRAMS[name][program], folder(TOOLS / name, root))


def _download(module: Path) -> None:
    print(f"tests/cluster: fetching the Go modules of tools/{module.name}", flush=True)
    done = subprocess.run(["go", "mod", "download"], cwd=module, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())
        raise EnvironmentNotReady(f"a Go module cannot be had ({reason}); see GOPROXY in `go env`")


def _build(module: Path, program: str, package: str, target: Path) -> None:
    print(f"tests/cluster: building {program} (once, minutes; kept in {target})", flush=True)
    begun = time.monotonic()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        output = Path(scratch) / program
        command = ["go", "build", "-ldflags", _stamp(module), "-o", str(output), package]
        done = subprocess.run(command, cwd=module, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EnvironmentNotReady(f"{program} cannot be built: {done.stderr.strip()[-500:]}")
        output.replace(target / program)
    print(f"tests/cluster: {program} took {time.monotonic() - begun:.0f} s", flush=True)


def _stamp(module: Path) -> str:
    """Without it, Kubernetes calls itself v0.0.0, and clients refuse to talk to it."""
    flags = "-s -w"
    if module.name == "kubernetes":
        release = version(module, "k8s.io/kubernetes")
        major, minor, _ = release.split(".")
        place = "k8s.io/component-base/version"
        flags += f" -X {place}.gitVersion=v{release} -X {place}.gitMajor={major} -X {place}.gitMinor={minor}"
    return flags


def prepare() -> None:
    """Build where the tests would run on processes of this machine. Raises EnvironmentNotReady."""
    if source(dict(os.environ)) == "processes":
        build(cache(dict(os.environ)))


def source(environ: dict[str, str]) -> str:
    """Where the tests get a cluster: KUBECONFIG, kind or processes."""
    if environ.get("KUBECONFIG"):
        return "KUBECONFIG"
    if not (shutil.which("docker") and shutil.which("kind")):
        return "processes"
    daemon = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return "kind" if daemon.returncode == 0 else "processes"


if __name__ == "__main__":
    sys.argv[0] = "make test-cluster"
    main(prepare)
