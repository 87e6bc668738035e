import io

from rich.console import Console

from jobs.corpus.progress import StageDisplay


def test_without_a_terminal_there_is_a_line_a_minute() -> None:
    out = io.StringIO()
    times = iter(range(0, 10_000, 25))
    with StageDisplay(Console(file=out, force_terminal=False), lambda: float(next(times))) as display:
        for ended in range(1, 7):
            display.ended("clean", ended, 6)
    assert out.getvalue().splitlines() == ["clean 3/6", "clean 6/6"]


def test_on_a_terminal_there_is_a_bar_per_stage() -> None:
    out = io.StringIO()
    with StageDisplay(Console(file=out, force_terminal=True, width=80)) as display:
        display.ended("read", 1, 1)
        display.ended("clean", 2, 6)
    assert "read" in out.getvalue() and "2/6" in out.getvalue()
