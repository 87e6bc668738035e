"""What a person sees while a run trains."""

from __future__ import annotations

import io

from rich.console import Console

from jobs.training.progress import ProgressDisplay


def test_elsewhere_than_on_a_terminal_one_line_a_minute_and_at_each_evaluation() -> None:
    now = 1000.0
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, width=200), clock=lambda: now) as display:
        for step in range(1, 121):  # one step a second
            now += 1
            display.point(step, 240, {"loss": 4 - step / 100, "tokens_per_second": 512.3})
            if step == 100:
                display.point(step, 240, {"eval_loss": 2.5})

    assert text.getvalue().splitlines() == [
        "step 1/240  loss 3.990  512 tokens/s",
        "step 61/240  loss 3.390  512 tokens/s  179 s left",
        "step 100/240  loss 3.000  held-out 2.500  512 tokens/s  140 s left",
    ]


def test_on_a_terminal_a_bar() -> None:
    text = io.StringIO()
    with ProgressDisplay(Console(file=text, width=200, force_terminal=True)) as display:
        display.point(30, 60, {"loss": 1.25})

    assert "30/60" in text.getvalue()
    assert "loss 1.250" in text.getvalue()
