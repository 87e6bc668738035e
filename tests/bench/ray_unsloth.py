"""Unsloth in a plain process against Unsloth in a Ray Train worker, one suspect at a time.

    python -m tests.bench.gpu --only unsloth-bf16    # makes the random weights
    python -m tests.bench.ray_unsloth [VARIANT ...]

Prints tokens per second of each variant with what differs in the process: threads, environment, modules loaded before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

VARIANTS = {
    "plain": "this process, main thread",
    "thread": "this process, another thread: torch keeps its compiler settings per thread",
    "omp-1": "this process with OMP_NUM_THREADS=1, which Ray sets from the CPUs of a worker",
    "distributed": "this process with a process group of one, which Ray Train starts",
    "ray": "Ray Train worker, print patch off",
    "ray-print": "Ray Train worker, print patch on (Ray's default)",
}


def work(config: dict[str, str]) -> dict[str, Any]:
    """Measure Unsloth here and say what this process is like."""
    import threading

    os.chdir(config["code"])
    before = [name for name in ("transformers", "trl", "peft", "triton", "torch._dynamo") if name in sys.modules]
    from tests.bench import gpu

    result = gpu.measure("unsloth-bf16", Path(config["folder"]))
    import torch

    return {
        "variant": config["variant"],
        "tokens_per_s": result["tokens_per_s"],
        "step_s": result["step_s"],
        "peak_gib": result["peak_gib"],
        "thread": threading.current_thread().name,
        "torch_threads": torch.get_num_threads(),
        "loaded_before": before,
        "distributed": torch.distributed.is_initialized(),
    }


def run(variant: str, config: dict[str, str]) -> dict[str, Any]:
    """Measure one variant in this process or in a Ray Train worker."""
    if variant == "thread":
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work, config).result()
    if variant == "distributed":
        import torch

        torch.cuda.set_device(0)
        torch.distributed.init_process_group("nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    if not variant.startswith("ray"):
        return work(config)
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(address="local", include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": config["code"]}})
    trainer = TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1, use_gpu=True),
        run_config=RunConfig(name=variant, storage_path=str(Path(config["folder"]).parent.resolve() / "ray")),
    )
    return dict(trainer.fit().return_value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ray_unsloth", description=__doc__)
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, []], default=list(VARIANTS))
    parser.add_argument("--folder", default="output/bench-model/7b")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        (variant,) = arguments.variants
        config = {"code": str(Path.cwd()), "folder": str(Path(arguments.folder).resolve()), "variant": variant}
        print("RESULT " + json.dumps(run(variant, config)))
        return 0
    for variant in arguments.variants:
        environment = os.environ | {"RAY_TRAIN_ENABLE_PRINT_PATCH": str(int(variant == "ray-print"))}
        if variant == "omp-1":
            environment["OMP_NUM_THREADS"] = "1"
        command = [sys.executable, "-m", "tests.bench.ray_unsloth", variant, "--folder", arguments.folder, "--here"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        print(found[-1].removeprefix("RESULT ") if found else f"{variant} failed: {done.stderr[-2000:]}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
