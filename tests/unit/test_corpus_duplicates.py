"""Shingles, evaluation runs and duplicates against what plain Python says."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from korean import edited, jaccard, paragraphs, texts

from jobs.corpus import contamination, duplicates, grams
from jobs.corpus.duplicates import Duplicates, Finder, Shard
from jobs.corpus.signatures import sign

SIMILARITY = 0.75


def shards(folder: Path, *parts: list[str]) -> Finder:
    found = []
    for number, part in enumerate(parts):
        signatures = sign(part)
        shard = Shard(folder / f"{number}.e.npy", folder / f"{number}.k.npy", len(part))
        np.save(shard.entries, signatures.entries)
        np.save(shard.keys, signatures.keys)
        found.append(shard)
    return Finder(found)


def as_dict(found: Duplicates) -> dict[int, int]:
    return dict(zip(found.dropped.tolist(), found.kept.tolist(), strict=True))


def test_runs_are_those_of_plain_python() -> None:
    rows = ["가나다 라마, 바사!", "", "A가b", "…!?", "똠방각하 12,345", "Ⅷ漢字 カナ ÄÖ"]
    codes = grams.letters(rows)
    expected = ["".join(c.lower() for c in row if c.isalnum()) for row in rows]
    assert ["".join(map(chr, codes.flat[a:b])) for a, b in pairwise(codes.offsets)] == expected
    assert grams.syllables(rows).lengths.tolist() == [7, 0, 1, 0, 4, 0]
    for size in (1, 3, 5):
        for partial in (False, True):
            found = grams.windows(codes, size, partial=partial)
            runs = [
                [row[at : at + size] for at in range(len(row)) if partial or at + size <= len(row)] for row in expected
            ]
            assert found.lengths.tolist() == [len(row) for row in runs]
            flat = [run for row in runs for run in row]
            assert len(set(found.flat.tolist())) == len(set(flat)) and len(flat) == len(found.flat)
            assert len(set(zip(flat, found.flat.tolist(), strict=True))) == len(set(flat)), "equal runs, equal hashes"


def test_a_row_is_signed_alike_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*texts(20), "짧다", "?!"]
    whole = sign(rows)
    monkeypatch.setattr(grams, "_BATCH_CHARACTERS", 700)
    assert np.array_equal(sign(rows).entries, whole.entries) and np.array_equal(sign(rows).keys, whole.keys)
    assert np.array_equal(sign(rows[::-1]).entries, whole.entries[::-1])


def test_exact_duplicates_within_and_across_shards(tmp_path: Path) -> None:
    a, b, c, d = texts(4)
    finder = shards(tmp_path, [a, b, a.upper()], [c, f"{b}!! ", a], [], [d])
    assert as_dict(finder.exact()) == {2: 0, 4: 1, 5: 0}
    assert as_dict(finder.near(SIMILARITY, finder.exact().dropped)) == {}


def test_planted_near_duplicates_are_found_and_unlike_rows_stay(tmp_path: Path) -> None:
    rng = random.Random(5)
    originals = texts(200, seed=1)
    copies = [edited(text, 0.85, rng) for text in originals]
    achieved = [jaccard(one, other) for one, other in zip(originals, copies, strict=True)]
    assert min(achieved) >= 0.85 and sum(achieved) / len(achieved) < 0.87
    finder = shards(tmp_path, originals[:90], originals[90:] + copies[:70], copies[70:])

    found = as_dict(finder.near(SIMILARITY, np.empty(0, np.int64)))

    pairs = {200 + number: number for number in range(200)}
    assert len(found.items() & pairs.items()) >= 0.95 * 200
    assert not found.keys() - pairs.keys(), "an unlike row was dropped"


def test_rows_below_the_similarity_stay(tmp_path: Path) -> None:
    rng = random.Random(6)
    originals = texts(100, seed=2)
    finder = shards(tmp_path, originals, [edited(text, 0.55, rng) for text in originals])
    assert len(finder.near(SIMILARITY, np.empty(0, np.int64)).dropped) <= 2


def test_the_first_of_a_group_stays_and_passes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    families = texts(40, seed=3)
    rows = [family if copy == 0 else edited(family, 0.9, rng) for copy in range(5) for family in families]
    finder = shards(tmp_path, rows[:90], rows[90:])

    found = as_dict(finder.near(SIMILARITY, np.empty(0, np.int64)))

    assert set(found.values()) <= set(range(40))
    assert sum(kept == dropped % 40 for dropped, kept in found.items()) >= 155
    monkeypatch.setattr(duplicates, "_KEYS_PER_PASS", 30)
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 7)
    assert as_dict(finder.near(SIMILARITY, np.empty(0, np.int64))) == found


def test_dropped_rows_are_no_reason_to_drop_another(tmp_path: Path) -> None:
    (text,) = texts(1)
    other = edited(text, 0.9, random.Random(1))
    finder = shards(tmp_path, [text, other])
    assert as_dict(finder.near(SIMILARITY, np.empty(0, np.int64))) == {1: 0}
    assert as_dict(finder.near(SIMILARITY, np.array([0]))) == {}


def test_evaluation_overlap_is_named(tmp_path: Path) -> None:
    question = "고구려의 도읍을 국내성에서 평양으로 옮긴 왕은 누구인가"
    (tmp_path / "set.jsonl").write_text(
        json.dumps({"q": "다른 물음입니다"}) + "\n" + json.dumps({"id": 1, "q": question, "choices": ["가", "나"]}),
        encoding="utf-8",
    )
    runs = contamination.read([str(tmp_path)], 13)
    rows = [
        paragraphs()[0],
        f"문제입니다. {question.replace(' ', '')}? 답은 장수왕.",
        "고구려의 도읍을, 국내성에서 평",  # 13 syllables
        "고구려의 도읍을, 국내성에서",
        "다른 물음입니다",  # too short to tell
        "",
    ]
    assert runs.overlaps(rows) == [None, "set.jsonl:2", "set.jsonl:2", None, None, None]


def test_the_sample_keeps_clear_of_the_projects_own_sets() -> None:
    data = Path(contamination.__file__).parents[1] / "data"
    runs = contamination.read([str(data / "eval")], 13)
    assert set(runs.overlaps(list(paragraphs()))) == {None}
    prompt = json.loads((data / "eval/prompts_ko.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert runs.overlaps([f"머리말. {prompt['reference']}"]) == ["prompts_ko.jsonl:1"]
