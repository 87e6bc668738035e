"""Commands run as a user runs them: in this process, which has paid for the imports, or in one of their own."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs import chat, cli, evaluate, export, pipeline, preprocess, promote, tune
from jobs import train as job
from jobs.runs import Run, read_events
from jobs.storage import Storage

REPOSITORY = Path(__file__).resolve().parents[2]
MAINS = {
    "train": job.main,
    "chat": chat.main,
    "export": export.main,
    "preprocess": preprocess.main,
    "tune": tune.main,
    "evaluate": evaluate.main,
    "promote": promote.main,
    "pipeline": pipeline.main,
}

TINY: dict[str, Any] = {
    "model.dtype": "float32",
    "lora.rank": 4,
    "data.held_out": 0.2,
    "data.max_length": 96,
    "train.batch_size": 4,
    "train.learning_rate": 0.01,
    "train.epochs": 2,
    "train.checkpoint_every_steps": 4,
    "eval.generations": 2,
    "eval.max_new_tokens": 4,
}
"""Ten steps an epoch on the tiny data, each some 20 ms."""


def conversations(count: int) -> list[dict[str, Any]]:
    """Rows of different lengths; each content is unique."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"{number} 더하기 {number % 7}은?"},
                {"role": "assistant", "content": "안녕하세요, " * (number % 5) + f"{number + number % 7}입니다."},
            ]
        }
        for number in range(count)
    ]


def overrides(model: Path, data: Path, root: Path | str, values: Mapping[str, Any]) -> str:
    """What goes into SET."""
    given = {"model.source": model, "data.source": data, "storage.root": root} | TINY | values
    return " ".join(f"{key}={value}" for key, value in given.items() if value is not None)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    out: str
    err: str
    root: str

    @property
    def run(self) -> Run:
        """The run that its output names."""
        match = re.search(r"^run ([a-z]+-\S+)", self.out, re.MULTILINE)
        assert match, self.err
        return Run.open(Storage(self.root), match.group(1))

    @property
    def error_line(self) -> str:
        """The one line that says what was wrong; fails if there is more than that or a traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@dataclass(frozen=True)
class Command:
    """Calls the entry points in this process."""

    model: Path
    data: Path
    monkeypatch: pytest.MonkeyPatch

    def train(self, root: Path | str, *arguments: str, **values: Any) -> Done:
        """`jobs.train` under the tiny settings; in `values`, `__` stands for the dot of a key."""
        given = {key.replace("__", "."): value for key, value in values.items()}
        return self.call("train", root, "--set", overrides(self.model, self.data, root, given), *arguments)

    def call(self, name: str, root: Path | str, *arguments: str) -> Done:
        """Any command."""
        self.monkeypatch.setattr(sys, "argv", [name, *arguments])
        out, err = io.StringIO(), io.StringIO()
        with pytest.raises(SystemExit) as ended, redirect_stdout(out), redirect_stderr(err):
            cli.main(MAINS[name])
        return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue(), str(root))


@dataclass
class Started:
    """A process of its own that works on a run."""

    process: subprocess.Popen[str]
    root: Path

    @classmethod
    def train(cls, set_: str, root: Path, environ: Mapping[str, str] | None = None) -> Started:
        """Start `jobs.train` in a process group of its own."""
        return cls.job("train", ["--set", set_], root, environ)

    @classmethod
    def job(cls, name: str, arguments: Sequence[str], root: Path, environ: Mapping[str, str] | None = None) -> Started:
        """Start any job likewise."""
        process = subprocess.Popen(
            [sys.executable, "-m", f"jobs.{name}", *arguments],
            cwd=REPOSITORY,
            env=os.environ | dict(environ or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return cls(process, root)

    def run(self) -> Run:
        """The run, once the process has named it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("run "):
                return Run.open(Storage(str(self.root)), line.split()[1])
        raise AssertionError(self.process.communicate()[1])

    def wait_for(self, condition: Callable[[], bool], every_s: float = 0.005) -> None:
        """Watch until `condition` holds; fails if the process ends before. A costly look wants a longer pause."""
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(every_s)

    def finish(self) -> Done:
        """Let it run to its end."""
        out, err = self.process.communicate()
        return Done(self.process.returncode, out, err, str(self.root))

    def stop(self) -> None:
        """Kill what is left of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def mount(*arguments: str) -> None:
    """Mount, or skip the test where this user may not."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")


def kinds(run: Run) -> list[str]:
    """Kinds of all events, in order."""
    return [event.kind for event in read_events(run)]


def checkpoint_steps(run: Run) -> list[int]:
    """Steps of the checkpoints on record, in the order in which they were made."""
    return [event.fields["step"] for event in read_events(run) if event.kind == "checkpoint"]


def losses(run: Run) -> dict[int, float]:
    """Training loss by step; of a repeated step the last value."""
    return {
        event.fields["step"]: event.fields["values"]["loss"]
        for event in read_events(run)
        if event.kind == "metrics" and "loss" in event.fields["values"]
    }
