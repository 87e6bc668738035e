"""The same training step in a plain process and in Ray Train workers, on one GPU and on all of this machine's.

    python -m tests.bench.gpu --only unsloth-bf16    # makes the random weights
    python -m tests.bench.ray_gpu [--lines unsloth-bf16 compiled-8bit ...]

Each measurement is a process of its own; `tests.bench.gpu` says what a line trains and how it is timed. Prints tokens
per second over all workers, and what each is of the plain process's and of one worker's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.gpu import LINES, SHARDED

PRINT_PATCH = "print patch"
"""Ray Train's own default, which the project switches off."""
_DEFAULT = ["unsloth-bf16", "compiled-bf16", "compiled-8bit", "compiled-bf16-sharded"]


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Measure one line in this process, whatever it is."""
    os.chdir(config["code"])
    from tests.bench import gpu

    result = gpu.measure(config["line"], Path(config["folder"]))
    return {"tokens_per_s": result["tokens_per_s"] * config["workers"], **{k: result[k] for k in KEPT}}


KEPT = ("step_s", "peak_gib", "imports_s", "load_s", "first_step_s")


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Measure in this process (`workers` 0 counts as one) or in Ray Train workers."""
    if not config["ray"]:
        return work(config)
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    path = os.pathsep.join([config["code"], os.environ.get("PYTHONPATH", "")])
    ray.init(address="local", include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    trainer = TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=config["workers"], use_gpu=True),
        run_config=RunConfig(name=config["name"], storage_path=str(Path(config["folder"]).parent.resolve() / "ray")),
    )
    return dict(trainer.fit().return_value)


def measure(line: str, where: str, workers: int, folder: Path) -> dict[str, Any]:
    """Start a process for one measurement and return its figures, or `failed`."""
    config = {
        "line": line,
        "ray": where != "plain",
        "workers": workers,
        "name": f"{line}-{where}-{workers}".replace(" ", "-"),
        "code": str(Path.cwd()),
        "folder": str(folder.resolve()),
    }
    environment = os.environ | {"RAY_TRAIN_ENABLE_PRINT_PATCH": str(int(where == PRINT_PATCH))}
    command = [sys.executable, "-m", "tests.bench.ray_gpu", "--measure", json.dumps(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = [out for out in done.stdout.splitlines() if out.startswith("RESULT ")]
    return dict(json.loads(found[-1][7:])) if found else {"failed": (done.stdout + done.stderr)[-1500:]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ray_gpu", description=__doc__)
    parser.add_argument("--lines", nargs="*", choices=LINES | SHARDED, default=_DEFAULT)
    parser.add_argument("--folder", type=Path, default=Path("output/bench-model/7b"))
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print("RESULT " + json.dumps(run(arguments.measure)))
        return 0
    import torch

    gpus = torch.cuda.device_count()
    if gpus == 0:
        print("ray_gpu needs a CUDA device; this machine has none", file=sys.stderr)
        return 3
    print(f"{gpus} x {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    for line in arguments.lines:
        one: dict[str, float] = {}
        for where, workers in places(line, gpus):
            result = measure(line, where, workers, arguments.folder)
            rate = result.get("tokens_per_s", 0)
            one |= {where: rate} if workers == 1 else {}
            against = {f"against_{of}": round(rate / one[of], 3) for of in ("plain", "Ray Train") if one.get(of)}
            print(json.dumps({"line": line, "where": where, "workers": workers, **result, **against}), flush=True)
    return 0


def places(line: str, gpus: int) -> list[tuple[str, int]]:
    """Where a line is measured, on how many workers. A plain process is there to be compared with Unsloth's patches."""
    if line in SHARDED:
        return [("Ray Train", gpus)]
    alone = [("plain", 1), (PRINT_PATCH, 1)] if line.startswith("unsloth") else []
    return [*alone, ("Ray Train", 1)] + ([("Ray Train", gpus)] if gpus > 1 else [])


if __name__ == "__main__":
    raise SystemExit(main())
