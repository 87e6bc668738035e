"""A program that runs beside the tests and dies with them, however they end."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

# The kernel ends the program when we are gone, killed ones included.
_TIED = [tool, "--pdeathsig", "KILL", "--"] if (tool := shutil.which("setpriv")) else []

_PARENT = ThreadPoolExecutor(1)
"""Starts all programs: for the kernel, they are gone with us when the thread that started them is."""


class Process:
    """One program that can be started, frozen and killed again and again; it writes its log to a file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command, self.log, self.env = list(command), log, env
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what an earlier start wrote to the log stays."""
        with self.log.open("ab") as log:
            self._running = _PARENT.submit(
                subprocess.Popen, [*_TIED, *self.command], stdout=log, stderr=subprocess.STDOUT, env=self.env
            ).result()

    @property
    def pid(self) -> int:
        assert self._running
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._running
        return self._running.poll()

    def wait(self, timeout_s: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        assert self._running
        return self._running.wait(timeout_s)

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once. Told to end in order, an API server would wait for its watches."""
        if self._running and self._running.poll() is None:
            self._running.kill()
        if self._running:
            self._running.wait()

    def wait_answers(self, url: str, timeout_s: float = 60) -> None:
        """Wait until it answers a GET with success, whatever its certificate; fails with its last words."""
        unverified, deadline_s = ssl._create_unverified_context(), time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            assert self.exit_code is None, self.last_words()
            try:
                urllib.request.urlopen(url, context=unverified, timeout=2)
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self.last_words())

    def last_words(self) -> str:
        """End of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def _signal(self, number: int) -> None:
        assert self._running
        self._running.send_signal(number)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [made.getsockname()[1] for made in sockets]
