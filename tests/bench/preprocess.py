"""Corpus preparation: throughput beside datatrove, memory as the corpus grows, near-duplicates found and rows lost.

python -m tests.bench preprocess
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.unit import korean

ROOT = Path(__file__).resolve().parents[2]
_ROUNDS = 3

_OURS = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from jobs import settings
from jobs.corpus import datasheet, pipeline, plots, reading, stages
from jobs.runs import Run
from jobs.storage import Storage
source, output, scratch = sys.argv[1:]
tree = settings.load(None, f"corpus.source=[{source}] corpus.output={output} corpus.evaluation=[]")
pipeline.Tracker = lambda *_: nullcontext()
run = Run.create(Storage(scratch), "preprocess", settings.to_yaml(tree))
begun = time.process_time()
with run.lock():
    result = pipeline.prepare(tree, run, lambda *_: None)
print(time.process_time() - begun, sum(result["rows"].values()))
"""
_THEIRS = """
import sys, time
from pathlib import Path
from tests.bench import datatrove_pipeline
import pyarrow.dataset
source, output, scratch = map(Path, sys.argv[1:])
begun = time.process_time()
datatrove_pipeline.prepare(source, output, scratch)
print(time.process_time() - begun, pyarrow.dataset.dataset(output).count_rows())
"""


def throughput() -> tuple[float, float, tuple[int, int]]:
    """Input megabytes per second of CPU, ours and datatrove's, and the rows that each kept. They take turns."""
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as name:
        folder = Path(name)
        size = write_corpus(folder / "raw", rows=12_000, seed=1)
        seconds: dict[str, list[float]] = {_OURS: [], _THEIRS: []}
        kept = {}
        for turn in range(_ROUNDS):
            for script in (_OURS, _THEIRS):
                out, scratch = folder / f"out-{turn}-{len(script)}", folder / f"scratch-{turn}-{len(script)}"
                arguments = [sys.executable, "-c", script, str(folder / "raw"), str(out), str(scratch)]
                done = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True)
                cpu, rows = done.stdout.split()[-2:]
                seconds[script].append(float(cpu))
                kept[script] = int(rows)
                print(f"{'ours' if script == _OURS else 'datatrove'}: {cpu} s of CPU, {rows} rows", file=sys.stderr)
        ours, theirs = (size / 1e6 / statistics.median(seconds[script]) for script in (_OURS, _THEIRS))
        return ours, theirs, (kept[_OURS], kept[_THEIRS])


def peak_memory() -> tuple[int, int]:
    """Peak resident bytes of a whole run, on two shards of text and on twenty times as much."""
    peaks = []
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as name:
        folder = Path(name)
        for number, rows in enumerate((6_000, 120_000)):
            write_corpus(folder / f"raw-{number}", rows, seed=number)
            options = f"storage.root={folder}/root-{number} corpus.shard_characters=800000"
            command = ["--input", str(folder / f"raw-{number}"), "--output", str(folder / f"out-{number}")]
            subprocess.run([sys.executable, "-m", "jobs.preprocess", *command, "--set", options], cwd=ROOT, check=True)
            run = (folder / f"root-{number}/runs/latest").read_text().strip()
            result = json.loads((folder / f"root-{number}/runs/{run}/result.json").read_text(encoding="utf-8"))
            peaks.append(result["peak_memory_bytes"])
    return peaks[0], peaks[1]


def planted() -> tuple[float, float]:
    """Share of the rows planted at Jaccard 0.85 to an earlier one that is dropped, and of unlike rows that are lost."""
    import numpy as np

    from jobs.corpus.duplicates import Finder, Shard
    from jobs.corpus.settings import CorpusSettings
    from jobs.corpus.signatures import sign

    rng = random.Random(3)
    unlike = korean.texts(20_000, seed=4)
    copies = [korean.edited(text, 0.85, rng) for text in unlike[:2_000]]
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as name:
        shards = []
        for number, rows in enumerate((unlike[:10_000], unlike[10_000:], copies)):
            shard = Shard(Path(name) / f"{number}-entries.npy", Path(name) / f"{number}-keys.npy", len(rows))
            signatures = sign(rows)
            np.save(shard.entries, signatures.entries)
            np.save(shard.keys, signatures.keys)
            shards.append(shard)
        found = Finder(shards).near(CorpusSettings().near_duplicate_similarity, np.empty(0, np.int64))
    lost = int((found.dropped < 20_000).sum())
    return (len(found.dropped) - lost) / len(copies), lost / len(unlike)


def write_corpus(folder: Path, rows: int, seed: int) -> int:
    """Korean-looking JSONL as found: markup, personal data, odd spaces, short and foreign rows, repeats. Its bytes."""
    folder.mkdir(parents=True)
    file = folder / "rows.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for row in _noisy(rows, random.Random(seed)):
            stream.write(json.dumps({"text": row}, ensure_ascii=False) + "\n")
    return file.stat().st_size


def _noisy(rows: int, rng: random.Random) -> Iterator[str]:
    earlier: list[str] = []
    for number in range(rows):
        (text,) = korean.texts(1, seed=rng.getrandbits(32), sentences_per_text=rng.randrange(4, 16))
        match rng.randrange(20):
            case 0 if earlier:
                text = rng.choice(earlier)
            case 1 if earlier:
                words = rng.choice(earlier).split()
                words[rng.randrange(len(words))] = "바뀐말"
                text = " ".join(words)
            case 2:
                text = f"<div class='b'><p>{text}</p>&nbsp;<br/></div>"
            case 3:
                text = (
                    f"{text} 문의: 010-{rng.randrange(2000, 9999)}-{rng.randrange(1000, 9999)}, a{number}@example.co.kr"
                )
            case 4:
                text = text.replace(" ", " \u200b  ", 5)
            case 5:
                text = "짧은 글입니다."
            case 6:
                text = "The quick brown fox jumps over the lazy dog near the river bank. " * 4
        earlier = [*earlier[-200:], text]
        yield text
