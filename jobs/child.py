"""Processes that do not outlive the one that started them.

    python -m jobs.child <parent's pid> train --config … --run-id …

A pipeline that was killed must not leave a training behind that the resumed one would then trip over, nor `make serve`
a gateway on its port.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def start(
    module: str, arguments: Sequence[str], environ: Mapping[str, str] | None = None, stderr: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """`jobs.<module>` in a process that dies with this one, however that ends."""
    code = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "jobs.child", str(os.getpid()), module, *arguments]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path} | dict(environ or {}), stderr=stderr)


def main() -> None:
    """Bind this process to its parent and become the job."""
    parent, job, *arguments = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(f"process {parent}, which wanted {job}, is gone")
    sys.argv = [job, *arguments]
    runpy.run_module(f"jobs.{job}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
