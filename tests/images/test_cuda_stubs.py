"""The stand-ins for CUDA's libraries, on two small libraries made here. With torch itself: test_built.py."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile import ROOT

GPU = """
int versioned(void) { return 1; }
int plain(void) { return 2; }
"""
TORCH = """
int versioned(void);
int plain(void);
int answer(void) { return 42; }
int call_versioned(void) { return versioned(); }
int call_plain(void) { return plain(); }
"""


def compiled(target: Path, code: str, *options: str) -> Path:
    command = ["gcc", "-shared", "-fPIC", "-o", str(target), "-x", "c", "-", "-x", "none", *options]
    subprocess.run(command, input=code, text=True, check=True)
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages whose torch is linked against a library of CUDA, of which one symbol has a version."""
    if missing := [tool for tool in ("gcc", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"{' and '.join(missing)} not found; the image's build stage has them")
    folder = tmp_path_factory.mktemp("site")
    libraries = folder / "torch/lib"
    libraries.mkdir(parents=True)
    script = folder / "versions.map"
    script.write_text("libgpu.so.13 { global: versioned; };\n")
    gpu = compiled(folder / "libgpu.so.13", GPU, "-Wl,-soname,libgpu.so.13", f"-Wl,--version-script={script}")
    compiled(libraries / "libtorch.so", TORCH, str(gpu), "-Wl,-rpath,$ORIGIN", "-Wl,-z,now")
    gpu.unlink()
    with pytest.raises(OSError, match=r"libgpu\.so\.13"):
        ctypes.CDLL(str(libraries / "libtorch.so"))
    subprocess.run([sys.executable, ROOT / "images/job/cuda_stubs.py", folder], check=True)
    return folder


def test_the_library_loads_and_what_needs_no_gpu_runs(site):
    code = f"import ctypes; print(ctypes.CDLL('{site}/torch/lib/libtorch.so').answer())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "42\n"


@pytest.mark.parametrize("function", ["call_versioned", "call_plain"])
def test_a_call_to_the_gpu_says_what_is_wrong(site, function):
    code = f"import ctypes; ctypes.CDLL('{site}/torch/lib/libtorch.so').{function}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == "haetsal: a CUDA function was called in the image without CUDA; use the gpu image\n"
