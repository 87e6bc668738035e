"""Take CUDA out of PyTorch's wheel from PyPI, for the image that runs on CPUs only.

The wheel is linked against 2 GB of CUDA libraries, which must be found when torch is imported, although no function in
them is called before the CUDA runtime (0.7 MB, kept) has found a device. So each library that is not installed gets a
stand-in of the same name, in which every function that torch wants says what is wrong and aborts.

    python cuda_stubs.py <site-packages>

Needs gcc and readelf, and is used in the build stage alone.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

DRIVER = "libcuda.so.1"
"""Comes with a GPU's driver, never with a wheel. A stand-in would make the runtime believe that there is one."""

STAND_IN = """
#include <stdlib.h>
#include <unistd.h>
__attribute__((used)) static void unavailable(void) {
    static const char message[] = "haetsal: a CUDA function was called in the image without CUDA; use the gpu image\\n";
    if (write(2, message, sizeof message - 1)) {}
    abort();
}
"""


def readelf(*arguments: str) -> list[str]:
    return subprocess.run(["readelf", "-W", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def needed(library: Path) -> list[str]:
    """File names of the libraries that `library` is linked against."""
    return [line.split("[")[1].rstrip("]") for line in readelf("-d", str(library)) if "(NEEDED)" in line]


def symbols(library: Path) -> tuple[set[str], dict[str, str]]:
    """Names that `library` defines, and those it wants from others, each with its version or ''; weak ones left out."""
    defined, wanted = set(), {}
    for line in readelf("--dyn-syms", str(library)):
        match = re.match(r"\s*\d+: \S+\s+\d+ \S+\s+(\S+)\s+\S+\s+(\S+) ([^\s@]+)(?:@+(\S+))?", line)
        if match and match[2] != "UND":
            defined.add(match[3])
        elif match and match[1] != "WEAK":
            wanted[match[3]] = match[4] or ""
    return defined, wanted


def versions(library: Path) -> dict[str, str]:
    """Which file each version of a wanted symbol comes from."""
    found, file = {}, ""
    for line in readelf("-V", str(library)):
        if match := re.search(r"File: (\S+)", line):
            file = match[1]
        elif match := re.search(r"Name: (\S+)", line):
            found[match[1]] = file
    return found


def compile_stand_in(target: Path, names: dict[str, str]) -> None:
    """Write the shared library `target` that exports `names` (name to version), all of them one aborting function."""
    by_version = defaultdict(list)
    for name, version in sorted(names.items()):
        by_version[version].append(name)
    script = target.with_suffix(".map")
    nodes = [f"{version} {{ global: {'; '.join(group)}; }};\n" for version, group in by_version.items() if version]
    script.write_text("".join(nodes))
    code = STAND_IN + "".join(f'__asm__(".globl {name}\\n.set {name}, unavailable");\n' for name in sorted(names))
    options = [f"-Wl,-soname,{target.name}", *([f"-Wl,--version-script={script}"] if nodes else [])]
    command = ["gcc", "-shared", "-fPIC", "-O1", "-s", *options, "-o", str(target), "-x", "c", "-"]
    subprocess.run(command, input=code, text=True, check=True)
    script.unlink()


def main(site_packages: Path) -> None:
    torch = sorted((site_packages / "torch" / "lib").glob("*.so*"))
    installed = [*torch, *(site_packages / "nvidia").glob("**/lib/*.so*")]
    system = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    present = {path.name for path in installed} | set(re.findall(r"^\s+(\S+) \(", system, re.MULTILINE))
    defined = set().union(*(symbols(path)[0] for path in installed))

    stand_ins: dict[str, dict[str, str]] = defaultdict(dict)
    for library in torch:
        missing = [name for name in needed(library) if name not in present and name != DRIVER]
        origin = versions(library)
        for name, version in symbols(library)[1].items():
            if version and origin[version] in missing:
                stand_ins[origin[version]][name] = version
            elif missing and not version and name not in defined and not name.startswith(("Py", "_Py")):
                stand_ins[missing[0]][name] = ""
        for name in missing:
            stand_ins[name] |= {}  # must be there to be loaded, even if torch names no function of it
    for name, names in stand_ins.items():
        compile_stand_in(site_packages / "torch" / "lib" / name, names)
        print(f"stand-in {name}: {len(names)} functions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
