"""What runs cost, by their events; budgets; the table of a period."""

from __future__ import annotations

import logging
import random
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import cli, settings
from jobs import cost as command
from jobs.costs import month
from jobs.costs.meter import Meter
from jobs.costs.spent import Used, budget_s, cost, in_result, used
from jobs.errors import BudgetSpent
from jobs.events import Event
from jobs.runs import EventLog, Run
from jobs.settings import Settings
from jobs.storage import Storage

PRICED = "cost.usd_per_hour.training=36"  # a cent a second


def tree(overrides: str = "") -> Settings:
    return settings.load(None, overrides)


def metrics(seq: int, at_s: float, **values: float) -> Event:
    return Event(seq, at_s, "metrics", {"step": seq, "steps": 9, "values": values})


EVENTS = [
    Event(1, 1000.0, "config", {}),
    metrics(2, 1060.0, busy_seconds=20.0, tokens=400_000.0),
    Event(3, 1100.0, "failed", {"reason": "killed"}),
    Event(4, 9000.0, "config", {}),  # resumed two hours later
    metrics(5, 9100.0, busy_seconds=80.0, tokens=600_000.0),
]


def test_time_tokens_and_idle_time_without_the_pause() -> None:
    assert used(EVENTS) == Used(200.0, 100.0, 1_000_000.0)
    found = cost(tree(PRICED), "train", used(EVENTS))
    assert found and (found.usd, found.idle_usd, found.machines) == (pytest.approx(2.0), pytest.approx(1.0), 1)
    assert in_result(tree(PRICED), "train", EVENTS)["cost"]["usd_per_million_tokens"] == pytest.approx(2.0)


def test_without_a_price_there_is_no_cost() -> None:
    assert cost(tree(), "train", used(EVENTS)) is None
    assert in_result(tree(), "train", EVENTS) == {}
    assert cost(tree(PRICED), "preprocess", used(EVENTS)) is None, "a training machine's price is no other's"


@pytest.mark.parametrize(
    ("overrides", "job", "machines", "usd_per_hour"),
    [
        ("", "train", 1, 36),
        ("scaling.workers=4", "train", 4, 144),
        ("scaling.workers=4 scaling.gpus_per_worker=0.5", "train", 2, 72),
        ("scaling.workers=1 tune.max_concurrent=3", "tune", 3, 108),
        ("scaling.workers=4 cost.head_usd_per_hour=0.25", "train", 4, 144.25),
    ],
)
def test_machines_are_the_pods_of_the_run(overrides: str, job: str, machines: int, usd_per_hour: float) -> None:
    found = cost(tree(f"{PRICED} {overrides}"), job, Used(3600.0))
    assert found and (found.machines, found.usd_per_hour, found.usd) == (machines, usd_per_hour, usd_per_hour)


def test_a_budget_is_a_time() -> None:
    assert budget_s(tree(f"{PRICED} cost.run_budget_usd=0.5"), "train") == pytest.approx(50.0)
    assert budget_s(tree("cost.run_budget_usd=0.5"), "train") == float("inf"), "no price, no budget"


def new_run(root: Path, day: str = "2026-11-20", overrides: str = PRICED, job: str = "train") -> Run:
    now = datetime.fromisoformat(f"{day}T10:00:00+00:00")
    return Run.create(Storage(str(root)), job, settings.to_yaml(tree(overrides)), now, random.Random(day))


def write(run: Run, *events: tuple[float, str, dict[str, Any]]) -> None:
    clock = iter([at_s for at_s, _, _ in events])
    with run.lock(), EventLog(run, clock=lambda: next(clock)) as log:
        for _, kind, fields in events:
            log.append(kind, **fields)


def test_a_run_warns_at_80_percent_and_ends_at_100(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = new_run(tmp_path)
    write(run, (0.0, "config", {}), (50.0, "checkpoint", {}))  # 0.50 USD by an earlier session
    with run.lock(), EventLog(run) as log:
        now = [1000.0]
        meter = Meter(tree(f"{PRICED} cost.run_budget_usd=1"), "train", log, clock=lambda: now[0])
        for at_s, said in ((1029.0, 0), (1030.5, 1), (1040.0, 1)):
            now[0] = at_s
            meter.point({"busy_seconds": 1.0})
            meter.check()
            assert sum(event.kind == "budget" for event in log.read()) == said
        now[0] = 1050.0
        with pytest.raises(BudgetSpent, match=rf"{run.id}: 1.00 of 1 USD \(cost.run_budget_usd\) are spent") as raised:
            meter.check()
        assert raised.value.exit_code == 3
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_the_month_warns_and_then_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage(str(tmp_path))
    write(new_run(tmp_path), (0.0, "config", {}), (100.0, "result", {}))  # 1 USD
    write(new_run(tmp_path, "2026-10-31"), (0.0, "config", {}), (9000.0, "result", {}))  # last month's
    today = date(2026, 11, 23)
    month.check(tree(), storage, today)
    month.check(tree("cost.month_budget_usd=2"), storage, today)
    assert not caplog.records
    month.check(tree("cost.month_budget_usd=1.2"), storage, today)
    assert "1.00 of 1.2 USD (cost.month_budget_usd) are spent in 2026-11" in caplog.text
    with pytest.raises(BudgetSpent, match="raise the budget, or wait for the next month"):
        month.check(tree("cost.month_budget_usd=1"), storage, today)


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cost", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main(command.main)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_make_cost_lists_every_run_of_the_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = new_run(tmp_path)
    write(
        done,
        (0.0, "config", {}),
        (100.0, "metrics", {"step": 1, "steps": 1, "values": {"tokens": 5e5, "busy_seconds": 60}}),
    )
    write(new_run(tmp_path, "2026-11-21", ""), (0.0, "config", {}), (9.0, "result", {}))
    new_run(tmp_path, "2026-12-01")
    broken = new_run(tmp_path, "2026-11-22")
    broken.storage.write(broken.path("config.yaml"), b"train: {epoch: 1}")
    given = ["--set", f"storage.root={tmp_path}", "--since", "2026-11-01", "--until", "2026-11-30"]
    code, out, _ = call(monkeypatch, capsys, *given)
    assert code == 0
    assert "3 runs: 1.00 USD, of it 0.40 while no step ran; 2.00 USD per million trained tokens" in out
    assert "did you mean epochs?" in out, "a run that cannot be read is named and hides no other"
    assert "1 of them have no price: set cost.usd_per_hour" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "november"], "--since november: is no day; write it like 2026-11-23"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "--since 2026-11-02 is after --until 2026-11-01"),
        (["--prometheus", "http://127.0.0.1:9"], "cost.usd_per_hour.inference: is not set"),
        (["--prometheus", "ftp://x"], "is no address of Prometheus"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    priced = "cost.usd_per_hour.inference=1" if "ftp://x" in arguments else ""
    code, _, err = call(monkeypatch, capsys, "--set", f"storage.root={tmp_path} {priced}", *arguments)
    assert code == 2 and said in err and err.count("\n") == 1


def test_today_has_a_month() -> None:
    assert month.began(f"train-{datetime.now(UTC):%Y%m%d}-101500-3fa9") == datetime.now(UTC).date()
