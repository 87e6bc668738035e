"""One of two workers that train a split model on a CPU, over gloo: `python sharded_worker.py RANK PORT RUN SETTINGS`.

accelerate splits models on accelerators alone, though FSDP2 itself runs anywhere: here it is told that this is one. All
else is the loop as Ray Train's workers run it. After the first checkpoint both workers fail, once, and start again.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.state import DistributedType, PartialState

from jobs.runs import Run
from jobs.settings import load
from jobs.storage import Storage
from jobs.training import checkpoints
from jobs.training import loop as training
from jobs.training.loop import Worker, loop

_start = PartialState.__init__


def _start_as_accelerator(self: PartialState, *arguments: object, **options: object) -> None:
    _start(self, *arguments, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def main(rank: int, port: str, run_id: str, overrides: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": port}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.distributed.init_process_group("gloo")
    PartialState.__init__ = _start_as_accelerator  # type: ignore[method-assign]
    training.Tracker = lambda *_: nullcontext()  # type: ignore[assignment,misc]  # MLflow is looked at elsewhere
    settings = load(None, overrides)
    run = Run.open(Storage(settings.storage.root), run_id)
    failed = False

    def report(metrics: dict[str, float], folder: Path) -> None:
        nonlocal failed
        if rank == 0:
            checkpoints.keep(run, int(metrics["step"]), metrics["eval_loss"], folder, count=9)
        torch.distributed.barrier()
        if not failed:
            failed = True
            raise ConnectionResetError

    try:
        loop(settings, run, Worker(rank, 2, report))
    except ConnectionResetError:
        result = loop(settings, run, Worker(rank, 2, report))
        if rank == 0:
            run.finish(result)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
