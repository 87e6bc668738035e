"""Training steps that `make tune` needs to match a random search, on real trainings of a tiny Llama.

    python -m tests.bench.tune [--seeds 4]

Random search: 20 trials drawn from the space, each trained in full; its result is the lowest held-out loss of them
all, its cost all their optimiser steps. The search of `make tune` (its defaults: five random starts, grace 2,
reduction 2, 16 evaluations a trial) is then followed event by event: its cost is the optimiser steps of all its trials,
also of those that are stopped or still run, up to the first evaluation of any trial that is as low. Both draw from the
same space, which has the seven keys of the GPU configuration in the tiny model's orders of magnitude, and train the
same model on the same rows. Every search is compared with every random search, so that one lucky draw does not decide.
A search that does not get there within its samples counts as never.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, STEPS, BAR = 20, 64, 0.35
SPACE: dict[str, dict[str, Any]] = {
    "train": {
        "learning_rate": {"min": 1e-4, "max": 1e-1, "log": True},
        "batch_size": {"choices": [2, 4, 8]},
        "weight_decay": {"min": 0.0, "max": 0.1},
        "warmup": {"min": 3, "max": 32},
    },
    "lora": {
        "rank": {"choices": [2, 4, 8, 16]},
        "alpha": {"choices": [4, 8, 16]},
        "dropout": {"min": 0.05, "max": 0.3},
    },
}


def study(folder: Path, seed: int, **tune: Any) -> list[tuple[int, int, float]]:
    """Run one study; its reports in the order in which they came: trial, step, held-out loss."""
    from jobs import settings
    from jobs.runs import Run, read_events
    from jobs.storage import Storage
    from jobs.tuning import record
    from jobs.tuning import study as driver

    driver.Tracker = lambda *_: nullcontext()  # MLflow would take its share of the cores
    tree = {
        "model": {"source": str(folder / "model"), "dtype": "float32"},
        "data": {"source": str(ROOT / "jobs/data/sample_ko.jsonl"), "max_length": 64, "held_out": 0.1},
        "train": {"max_steps": STEPS, "seed": seed, "log_every_steps": STEPS},
        "eval": {"max_rows": 16, "batch_size": 16},
        "storage": {"root": str(folder / "root")},
        "tune": {"space": SPACE} | tune,
    }
    loaded = settings.from_tree(tree, "bench")
    run = Run.create(Storage(loaded.storage.root), "tune", settings.to_yaml(loaded))
    driver.conduct(loaded, run)
    reports = [event.fields for event in read_events(run) if event.kind == record.REPORT]
    return [(r["trial"], r["step"], r["eval_loss"]) for r in reports]


def steps_to_reach(reports: list[tuple[int, int, float]], target: float) -> float:
    """Optimiser steps of all trials up to the first report of `target` or less; infinite if there is none."""
    trained: dict[int, int] = {}
    for trial, step, loss in reports:
        trained[trial] = step
        if loss <= target:
            return sum(trained.values())
    return math.inf


def tiny_model(folder: Path) -> None:
    """The tests' tiny Llama and its tokenizer.

    Its random head is made ten times larger: as it is, the logits are so small that no adapter learns more than how
    often each token comes, and all trials end alike.
    """
    sys.path.insert(0, str(ROOT / "tests/unit"))
    import tiny
    import torch

    torch.manual_seed(7)
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer))
    model.lm_head.weight.data *= 10
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Print the table. Exit code 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="searches of each kind")
    seeds = range(1, parser.parse_args().seeds + 1)
    whole = SAMPLES * STEPS
    with tempfile.TemporaryDirectory(prefix="haetsal-bench-") as name:
        folder = Path(name)
        tiny_model(folder / "model")
        random = {s: study(folder, s, samples=SAMPLES, random_starts=SAMPLES, grace=16) for s in seeds}
        targets = {s: min(loss for _, _, loss in reports) for s, reports in random.items()}
        assert all(sum(step == STEPS for _, step, _ in reports) == SAMPLES for reports in random.values())
        tuned = {s + 100: study(folder, s + 100, samples=SAMPLES * 3 // 2) for s in seeds}
    columns = " | ".join(f"random {seed}: {target:.4f}" for seed, target in targets.items())
    print(f"\n| `make tune` | {columns} | its lowest of 20 trials |\n|{'---|' * (len(targets) + 2)}")
    shares = []
    for seed, reports in tuned.items():
        row = [steps_to_reach(reports, target) / whole for target in targets.values()]
        shares += row
        cells = " | ".join("never" if math.isinf(share) else f"{share:.0%}" for share in row)
        print(f"| seed {seed} | {cells} | {min(loss for trial, _, loss in reports if trial < SAMPLES):.4f} |")
    median = statistics.median(shares)
    met = sum(share <= BAR for share in shares)
    print(
        f"\nmedian {median:.0%} of the {whole:,} steps of a random search, bar {BAR:.0%}, met by {met} of {len(shares)}"
    )
    sys.exit(median > BAR)


if __name__ == "__main__":
    main()
