"""Runs a job that does not outlive the process that started it.

    python -m jobs.release.child <parent's pid> train --config … --run-id …

A pipeline that was killed must not leave a training behind that the resumed one would then trip over.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


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
