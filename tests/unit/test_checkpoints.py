"""Which checkpoints are kept, found and trusted."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from jobs.runs import EventLog, Run
from jobs.storage import Storage
from jobs.training import checkpoints
from jobs.training.checkpoints import surplus


@pytest.mark.parametrize(
    ("present", "scored", "keep", "deleted"),
    [
        ([], {}, 2, []),
        ([25], {25: 3.0}, 1, []),
        ([25, 50], {25: 2.0, 50: 3.0}, 1, []),  # the best and the newest
        ([25, 50], {25: 3.0, 50: 2.0}, 1, [25]),  # the newest is the best
        ([25, 50, 75], {25: 2.0, 50: 1.0, 75: 3.0}, 1, [25]),
        ([25, 50, 75, 100], {25: 2.0, 50: 1.0, 75: 3.0, 100: 4.0}, 2, [75]),
        ([25, 50, 60], {25: 2.0, 50: 3.0, 60: float("inf")}, 2, []),  # one without a score, kept as the newest
        ([25, 60, 75], {25: 2.0, 60: float("inf"), 75: 1.0}, 2, [60]),
        ([25, 50, 75], {25: 1.0, 50: 1.0, 75: 1.0}, 1, [25, 50]),  # of equals the newest
    ],
)
def test_surplus(present: list[int], scored: dict[int, float], keep: int, deleted: list[int]) -> None:
    assert surplus(present, scored, keep) == deleted


def test_surplus_keeps_best_and_newest_in_every_order() -> None:
    for losses in itertools.permutations([1.0, 2.0, 3.0, 4.0]):
        scored = dict(zip((1, 2, 3, 4), losses, strict=True))
        for keep in (1, 2, 3):
            kept = {1, 2, 3, 4} - set(surplus([1, 2, 3, 4], scored, keep))
            assert {min(scored, key=scored.__getitem__), 4} <= kept
            assert keep <= len(kept) <= keep + 1


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(Storage(str(tmp_path / "root")), "train", "")


def save(run: Run, tmp_path: Path, step: int, max_steps: int = 100) -> Path:
    folder = tmp_path / f"made-{step}"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": max_steps}))
    (folder / "optimizer.pt").write_bytes(bytes(1000))
    run.storage.publish_tree(folder, run.path("checkpoints", checkpoints.name_of(step)))
    return Path(run.address("checkpoints", checkpoints.name_of(step)))


def test_newest_is_the_newest_whole_one(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoints.newest(run, tmp_path / "scratch") is None
    first, second, third = (save(run, tmp_path, step) for step in (25, 50, 1_000_000))
    os.truncate(third / "optimizer.pt", 10)
    (second / "manifest.json").unlink()

    found = checkpoints.newest(run, tmp_path / "scratch")

    assert found is not None
    assert (found.step, found.folder) == (25, first)
    assert not found.is_last
    assert [r.message.split(":")[0] for r in caplog.records] == ["checkpoint passed over"] * 2
    assert checkpoints.steps(run) == [25, 50, 1_000_000]


def test_one_flipped_bit_is_seen(run: Run, tmp_path: Path) -> None:
    folder = save(run, tmp_path, 25)
    data = bytearray((folder / "optimizer.pt").read_bytes())
    data[500] ^= 1
    (folder / "optimizer.pt").write_bytes(data)

    assert checkpoints.newest(run, tmp_path / "scratch") is None


def test_last_checkpoint_knows_that_it_is(run: Run, tmp_path: Path) -> None:
    save(run, tmp_path, 100, max_steps=100)
    found = checkpoints.newest(run, tmp_path / "scratch")

    assert found is not None
    assert found.is_last


def test_best_is_the_lowest_score_among_the_whole_ones_that_are_kept(run: Run, tmp_path: Path) -> None:
    with EventLog(run) as events:
        assert checkpoints.best(run, events, tmp_path / "scratch") is None
        folders = {}
        for step, loss in ((25, 1.0), (50, 2.0), (75, 3.0), (80, None)):
            folders[step] = save(run, tmp_path, step)
            events.append("checkpoint", step=step, name=checkpoints.name_of(step), eval_loss=loss)
        assert checkpoints.scores(events.read()) == {25: 1.0, 50: 2.0, 75: 3.0}
        run.storage.delete_tree(run.path("checkpoints", checkpoints.name_of(25)))
        os.truncate(folders[50] / "optimizer.pt", 10)

        found = checkpoints.best(run, events, tmp_path / "scratch")

    assert found is not None
    assert found.step == 75
