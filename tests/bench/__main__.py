"""`make bench`: measure the README's figures on this machine, or some of them with ARGS="steps padding".

    python -m tests.bench [fresh] [start] [steps] [padding] [suite] [preprocess] [backup] [serving]

`backup` needs a kube-apiserver (see tests/bench/backup.py) and ten minutes. `fresh` clones the committed tree into an
empty folder with empty caches, so it needs a network and about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import preprocess as corpus
from tests.bench.serving import speed
from tests.bench.steps import padding_gain, step_overhead

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Figure:
    """One line of the table: what, measured value with unit, the bar, and whether it is met."""

    name: str
    value: str
    bar: str
    met: bool


def fresh() -> Iterator[Figure]:
    """A clone in an empty folder, with caches of its own, to a finished default run."""
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as name:
        folder = Path(name)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
        caches = {"XDG_CACHE_HOME": str(folder / "cache"), "UV_CACHE_DIR": str(folder / "uv"), "PIP_NO_CACHE_DIR": "1"}
        start = time.monotonic()
        subprocess.run(["make", "train"], cwd=folder / "clone", env=os.environ | caches, check=True)
        minutes = (time.monotonic() - start) / 60
        result = _result(folder / "clone/output")
    yield Figure("fresh clone to finished make train", f"{minutes:.1f} min", "≤ 10 min", minutes <= 10)
    reduction = result["perplexity_reduction"]
    figures = f"{result['base_perplexity']:.2f} → {result['eval_perplexity']:.2f}, {reduction:.0%} lower"
    yield Figure("held-out perplexity after the default run", figures, "≥ 20 % lower", reduction >= 0.2)


def start() -> Iterator[Figure]:
    """An installed checkout: from the command to the end of the first optimiser step."""
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as root:
        begun = time.time()
        options = f"train.max_steps=1 eval.generations=0 eval.max_rows=1 storage.root={root}"
        subprocess.run(["make", "train", f"SET={options}"], cwd=ROOT, check=True)
        run = next(p for p in Path(root, "runs").iterdir() if p.is_dir())
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = next(e["time_unix_s"] for e in events if e["kind"] == "metrics") - begun
    yield Figure("make train to first optimiser step", f"{seconds:.1f} s", "≤ 30 s", seconds <= 30)


def steps() -> Iterator[Figure]:
    """The loop's own cost over plain TRL."""
    ours, plain = step_overhead()
    text = f"{ours / plain:.3f} × ({ours:.2f} s against {plain:.2f} s)"
    yield Figure("step time against plain TRL", text, "≤ 1.05 ×", ours / plain <= 1.05)


def padding() -> Iterator[Figure]:
    """What grouping rows by length gains over padding each to the longest."""
    ours, padded = padding_gain()
    text = f"{ours / padded:.1f} × ({ours:.0f} against {padded:.0f} tokens/s)"
    yield Figure("useful tokens/s against padding to the maximum", text, "≥ 3 ×", ours / padded >= 3)


def preprocess() -> Iterator[Figure]:
    """Corpus preparation beside datatrove, its memory, and what it takes for duplicates."""
    ours, theirs, kept = corpus.throughput()
    text = f"{ours / theirs:.2f} × ({ours:.2f} against {theirs:.2f} MB/s; {kept[0]:,} and {kept[1]:,} rows kept)"
    yield Figure("preprocess throughput per core against datatrove", text, "≥ 1.5 ×", ours / theirs >= 1.5)
    small, large = corpus.peak_memory()
    text = f"{large / small:.2f} × ({large / 2**20:.0f} against {small / 2**20:.0f} MiB)"
    yield Figure("peak memory on a corpus 20 × larger", text, "≤ 1.3 ×", large / small <= 1.3)
    found, lost = corpus.planted()
    yield Figure("near-duplicates planted at Jaccard 0.85 found", f"{found:.1%}", "≥ 95 %", found >= 0.95)
    yield Figure("unlike rows lost with them", f"{lost:.3%}", "≤ 0.1 %", lost <= 0.001)


def suite() -> Iterator[Figure]:
    """How long the test suite takes."""
    begun = time.monotonic()
    subprocess.run(["make", "test"], cwd=ROOT, check=True)
    minutes = (time.monotonic() - begun) / 60
    yield Figure("make test", f"{minutes:.1f} min", "≤ 8 min", minutes <= 8)


def backup() -> Iterator[Figure]:
    """Backup and restore: 10,000 objects and 1 GB, every mutation, every crash point."""
    command = [sys.executable, "-m", "tests.bench.backup"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            yield Figure(**json.loads(line))


def serving() -> Iterator[Figure]:
    """What gateway and Ray Serve add to a request. Faults and memory: `python -m tests.bench.serving`."""
    for line in speed.figures():
        yield Figure(*line)


def _result(root: Path) -> dict[str, float]:
    run_id = (root / "runs/latest").read_text(encoding="utf-8").strip()
    result: dict[str, float] = json.loads((root / "runs" / run_id / "result.json").read_text(encoding="utf-8"))
    return result


def main() -> None:
    """Run the named benchmarks, all without a name, and print one table. Exit code 1 if a bar is missed."""
    known: dict[str, Callable[[], Iterator[Figure]]] = {
        f.__name__: f for f in (start, steps, padding, preprocess, suite, fresh, backup, serving)
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *known], help="default: all")
    chosen = parser.parse_args().names or list(known)
    figures = []
    for name in chosen:
        for figure in known[name]():
            print(f"{figure.name}: {figure.value}", file=sys.stderr)
            figures.append(figure)
    print("\n| what | measured | bar | |\n|---|---|---|---|")
    for f in figures:
        print(f"| {f.name} | {f.value} | {f.bar} | {'met' if f.met else 'MISSED'} |")
    sys.exit(not all(f.met for f in figures))


if __name__ == "__main__":
    main()
