"""Errors become one line and an exit code, at one place."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jobs import cli, errors


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.UsageError("wrong"), 2),
        (errors.EnvironmentNotReady("wrong"), 3),
        (errors.RemoteError("wrong"), 4),
        (errors.IntegrityError("wrong"), 5),
        (errors.Diverged("wrong"), 5),
        (errors.Interrupted("wrong"), 130),
    ],
)
def test_one_line_and_the_documented_code(
    capsys: pytest.CaptureFixture[str], error: errors.HaetsalError, exit_code: int
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(lambda: fail(error))

    assert ended.value.code == exit_code
    assert capsys.readouterr() == ("", "error: wrong\n")


def test_success_and_second_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(lambda: None)
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        cli.main(lambda: fail(KeyboardInterrupt()))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(lambda: fail(ZeroDivisionError()))


def test_secrets_in_a_message_are_masked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_thisIsATokenOfSomeone")
    with pytest.raises(SystemExit):
        cli.main(lambda: fail(errors.RemoteError("the hub refused hf_thisIsATokenOfSomeone")))

    assert capsys.readouterr().err == "error: the hub refused [redacted]\n"


def test_reader_that_goes_away_is_no_error() -> None:
    code = "from jobs import cli\ncli.main(lambda: [print('x' * 100) for _ in range(10_000)] and None)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_config_prints_a_tree_that_can_be_read_back() -> None:
    command = [sys.executable, "-m", "jobs.config", "--set", "lora.rank=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    from jobs.settings import from_yaml, load

    assert from_yaml(done.stdout, "output") == load(None, "lora.rank=3")
