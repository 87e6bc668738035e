"""Run `terraform` or `tofu` on a synthesised stack."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import EnvironmentNotReady, Interrupted, RemoteError
from terraform.state import STACKS


@dataclass(frozen=True)
class Tool:
    """The binary that plans and applies; `terraform` and `tofu` are equal here."""

    binary: Path
    version: tuple[int, ...]

    def run(self, stack: Path, *arguments: str) -> None:
        """Run one command in a stack's folder with our terminal. Raises RemoteError, Interrupted."""
        with _interrupts_reach_only_the_child() as interrupted:
            done = subprocess.run([self.binary, f"-chdir={stack}", *arguments], check=False)
        if interrupted():
            raise Interrupted(
                f"{self.binary.name} {arguments[0]} of {stack.name} was interrupted; run it again to go on"
            )
        if done.returncode != 0:
            raise RemoteError(f"{self.binary.name} {arguments[0]} of {stack.name} failed; its own message is above")

    def init(self, stack: Path) -> None:
        """Download providers and connect to the state. Raises RemoteError."""
        self.run(stack, "init", "-input=false")


def find_tool(oldest: str) -> Tool:
    """The first of $TERRAFORM, `terraform` and `tofu` on PATH. Raises EnvironmentNotReady: none, or below `oldest`."""
    names = [os.environ["TERRAFORM"]] if os.environ.get("TERRAFORM") else ["terraform", "tofu"]
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise EnvironmentNotReady(f"{' or '.join(names)} is not on PATH; install terraform or tofu, {oldest} or newer")
    answer = subprocess.run([found, "version"], capture_output=True, text=True, check=False)
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if match is None:
        raise EnvironmentNotReady(
            f"{found} does not tell its version: {answer.stderr.strip() or answer.stdout.strip()}"
        )
    version = tuple(map(int, match.groups()))
    if version < tuple(map(int, oldest.split("."))):
        raise EnvironmentNotReady(
            f"{found} is {'.'.join(map(str, version))}; {oldest} or newer is needed (lock file in S3)"
        )
    return Tool(Path(found), version)


def stack_folders(out: Path) -> dict[str, Path]:
    """Synthesised stacks below `out`, in the order they are applied."""
    return {name: out / "stacks" / name for name in STACKS if (out / "stacks" / name / "cdk.tf.json").exists()}


@contextmanager
def _interrupts_reach_only_the_child() -> Iterator[Callable[[], bool]]:
    """Ctrl-C goes to the whole process group; the tool unlocks its state on it, so we wait instead of killing it."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: seen.append(number))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
