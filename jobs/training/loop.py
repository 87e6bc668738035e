"""What every training worker runs, whoever started it.

`loop` does not know whether it is a plain process, a Ray Train worker or a Tune trial: the `Worker` that it is handed
says which rank it has, takes its checkpoints, and says when to stop. Rank 0 also keeps the run's events, compares the
result with the base model and publishes it.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import models
from jobs.backends import Backend, choose, sharding
from jobs.backends.device import train_planned
from jobs.costs.meter import Meter
from jobs.costs.spent import in_result
from jobs.errors import HaetsalError, Interrupted
from jobs.runs import EventLog, Run, git_revision
from jobs.settings import Settings
from jobs.tracking import Tracker
from jobs.training import checkpoints, report
from jobs.training.memory import peak_bytes
from jobs.training.telemetry import Telemetry
from jobs.training.utilisation import on_this_gpu

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from jobs.dataset import Prepared
    from jobs.training.callbacks import Curve, StopOnRequest
    from jobs.training.feed import Feed
    from jobs.training.trainer import Trainer

_log = logging.getLogger(__name__)

Show = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Worker:
    """What differs between the ways to start a loop."""

    rank: int
    world_size: int
    report: Callable[[dict[str, float], Path], None]
    """Takes metrics (`step`, `eval_loss`) and a complete checkpoint folder; returns when the checkpoint is safe."""
    stop_requested: Callable[[], bool] = lambda: False
    """True once the user has asked for a clean stop."""
    show: Show = lambda step, steps, values: None
    """Sees every point of the curve: step, total steps, values."""
    is_trial: bool = False
    """Whether this is one trial of a study: its checkpoints are all it leaves, and the study does the tracking."""


def loop(settings: Settings, run: Run, worker: Worker) -> dict[str, Any]:
    """Train, compare with the base, publish `model/` and `report/`; return the numbers of `result.json` (rank 0).

    A trial only trains.

    Raises Diverged, Interrupted, and the errors of the parts it calls; rank 0 puts the reason on record first.
    """
    folder = models.resolve(settings.model)
    if worker.rank > 0:
        return train_planned(
            settings,
            folder,
            run,
            worker.world_size,
            lambda table: None,
            lambda tree: _Session(tree, run, worker, folder).train_and_publish(),
        )
    with EventLog(run) as events, nullcontext() if worker.is_trial else Tracker(settings.tracking, events):
        events.append("config", settings=settings.model_dump(mode="json"), git_revision=git_revision())

        def say(table: str) -> None:
            events.append("plan", table=table)
            _log.info("planned for this GPU:\n%s", table)

        telemetry = None if worker.is_trial else Telemetry(run.id, Meter(settings, run.job, events))
        try:
            if telemetry:
                telemetry.meter.check()
            result = train_planned(
                settings,
                folder,
                run,
                worker.world_size,
                say,
                lambda tree: _Session(tree, run, worker, folder, events, telemetry).train_and_publish(),
            )
        except HaetsalError as error:
            events.append("failed", type=type(error).__name__, reason=str(error), exit_code=error.exit_code)
            raise
        finally:
            if telemetry:
                telemetry.close()
        events.append("result", **result)
        return result


@dataclass
class _Session:
    """One pass through the loop, with what its parts share."""

    settings: Settings
    run: Run
    worker: Worker
    folder: Path
    events: EventLog | None = None
    telemetry: Telemetry | None = None
    phases: dict[str, float] = field(default_factory=dict)

    def train_and_publish(self) -> dict[str, Any]:
        backend = choose(self.settings)
        with self._phase("imports"):
            backend.prepare(self.settings)
            from jobs.dataset import build
            from jobs.training.callbacks import Curve, StopOnRequest
            from jobs.training.feed import Feed
            from jobs.training.trainer import Trainer  # noqa: F401  (the slow import, timed here)
        with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch_name:
            scratch = Path(scratch_name)
            with self._phase("load"):
                model, tokenizer = backend.load(self.settings, self.folder)
            with self._phase("data"):
                data = build(tokenizer, self.settings.data).limit_held_out(self.settings.eval.max_rows)
            feed = Feed()
            utilisation = on_this_gpu(self.settings, self.folder, self.worker.world_size)
            curve, stop = Curve(self._emit, feed, utilisation), StopOnRequest(self.worker.stop_requested)
            with self._phase("train"):
                trainer = self._trainer(backend, model, tokenizer, data, scratch, feed, curve, stop)
                self._train(backend, trainer, checkpoints.newest(self.run, scratch / "resume"))
            self._stop_if_requested(f"at step {trainer.state.global_step} of {trainer.state.max_steps}")
            if self.worker.is_trial or (self.events is None and not self.settings.scaling.is_sharded):
                return {}
            return self._publish(backend, trainer, data, curve, scratch)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.phases[name] = round(time.perf_counter() - start, 3)
        if self.events is not None:
            self.events.append("phase", name=name, seconds=self.phases[name])
        if name != "train":
            self._stop_if_requested(f"after {name}")

    def _stop_if_requested(self, where: str) -> None:
        if self.worker.stop_requested():
            raise Interrupted(f"stopped {where}")

    def _emit(self, step: int, steps: int, values: dict[str, float]) -> None:
        if self.events is not None:
            self.events.append("metrics", step=step, steps=steps, values=values)
            self.worker.show(step, steps, values)
        if self.telemetry is not None:
            self.telemetry.point(step, steps, values)

    def _hand_over(self, step: int, loss: float | None, folder: Path) -> None:
        checkpoints.gather_random_states(folder, self.worker.rank, self.worker.world_size)
        # A checkpoint without a score (the user stopped between evaluations) must not look like the best one.
        self.worker.report({"step": float(step), "eval_loss": float("inf") if loss is None else loss}, folder)
        if self.events is not None:
            self.events.append("checkpoint", step=step, name=checkpoints.name_of(step), eval_loss=loss)
            self.events.publish()
        if self.telemetry is not None:
            self.telemetry.checkpoint()
            self.telemetry.meter.check()

    def _trainer(
        self,
        backend: Backend,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        data: Prepared,
        scratch: Path,
        feed: Feed,
        curve: Curve,
        stop: StopOnRequest,
    ) -> Trainer:
        from transformers import EarlyStoppingCallback, PrinterCallback

        from jobs.training.arguments import sft_config
        from jobs.training.callbacks import Checkpoints, Guard
        from jobs.training.trainer import Trainer

        train = self.settings.train
        callbacks = [Guard(train.max_loss_ratio), curve, Checkpoints(self._hand_over), stop]
        if train.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(train.early_stopping_patience))
        trainer = Trainer(
            feed=feed,
            model=model,
            args=sft_config(self.settings, backend, data.packed, scratch / f"rank-{self.worker.rank}"),
            train_dataset=data.train,
            eval_dataset=data.held_out,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _train(self, backend: Backend, trainer: Trainer, resume_from: checkpoints.Checkpoint | None) -> None:
        if resume_from is None:
            trainer.train()
        elif resume_from.is_last:  # the run was stopped after training; transformers would take one step too many
            trainer.adopt_state(resume_from.folder)
            backend.load_trained(trainer.accelerator.unwrap_model(trainer.model), resume_from.folder)
        else:
            trainer.train(resume_from_checkpoint=str(resume_from.folder))

    def _best(self, scratch: Path) -> checkpoints.Checkpoint | None:
        best = checkpoints.best(self.run, self.events, scratch) if self.events is not None else None
        if not self.settings.scaling.is_sharded:
            return best
        step = sharding.agreed(best.step if best else None)
        return best or (None if step is None else checkpoints.fetch(self.run, step, scratch))

    def _publish(
        self, backend: Backend, trainer: Trainer, data: Prepared, curve: Curve, scratch: Path
    ) -> dict[str, Any]:
        """Compare, save and put on record what was learnt. The workers of a split model go through it together, because
        each computes a share; what is written, the first one writes."""
        model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
        best = self._best(scratch / "best")
        if best is not None and best.step != trainer.state.global_step:
            backend.load_trained(model, best.folder)
        with self._phase("compare"):
            comparison = report.compare(self.settings, backend, model, tokenizer, self.folder, data)
        with self._phase("save"):
            product = scratch / "model"
            backend.save(model, product)
            if self.events is None:
                return {}
            tokenizer.save_pretrained(product)
            self.run.publish(product, "model")
        result = {
            "steps": trainer.state.global_step,
            "best_step": best.step if best else trainer.state.global_step,
            "backend": backend.name,
            **comparison.numbers(),
            "tokens": int(curve.tokens),
            "tokens_per_second": curve.tokens / max(sum(curve.step_seconds), 1e-9),
            "step_seconds": statistics.median(curve.step_seconds) if curve.step_seconds else None,
            "peak_memory_bytes": peak_bytes(),
            "phase_seconds": self.phases,
            "base_model_sha256": models.identity(self.folder),
            "data": data.statistics,
            **in_result(self.settings, self.run.job, self.events.read()),
        }
        report.publish(self.run, result, comparison, self.events)
        return result
