"""The engine `transformers`: any device, continuous batching, adapters swapped while it serves.

One thread computes; requests come and go on an event loop. Between two steps the thread takes what was sent to it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from jobs.serving.engines.adapters import Adapters, Slot
from jobs.serving.engines.scheduler import Job, Scheduler
from jobs.serving.engines.task import Piece, Task

Command = Callable[[], None]


class TransformersEngine:
    """A base model with any number of adapters. `close` ends the thread."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        most_rows: int,
        prefill_tokens: int,
    ) -> None:
        """`name` is what requests call the base by."""
        self._base = name
        self._slots: dict[str, Slot] = {name: None}
        self._adapters = Adapters(model.eval())
        self._scheduler = Scheduler(
            self._adapters,
            lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True)),
            _end_tokens(model, tokenizer),
            most_rows,
            prefill_tokens,
        )
        self._retired: list[str] = []
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._closed = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def models(self) -> list[str]:
        """Names that a task may carry: the base first."""
        return list(self._slots)

    @property
    def running(self) -> int:
        """Answers that take part in forward passes now."""
        return self._scheduler.running

    def stalled_s(self) -> float:
        """How long the present step has taken, in seconds; infinite once the thread is dead."""
        if not self._thread.is_alive():
            return float("inf")
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def generate(self, task: Task) -> AsyncIterator[Piece]:
        """The answers' pieces as they come. Whoever stops iterating stops the computation within one step.

        Raises KeyError for a model that is not there, RuntimeError when the computation failed.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

        def deliver(piece: Piece | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job = Job(task, self._slots[task.model], deliver)
        self._commands.put(lambda: self._scheduler.add(job))
        unfinished = task.choices
        try:
            while unfinished:
                piece = await pieces.get()
                if isinstance(piece, BaseException):
                    raise RuntimeError("the computation failed") from piece
                unfinished -= piece.finish is not None
                yield piece
        finally:
            job.cancelled = True

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Serve the adapter in `folder` as `name`, in the place of another of this name.

        Answers under way go on with the adapter that they began with. Raises UsageError if it does not fit the base.
        """

        def load() -> None:
            slot = self._adapters.load(folder)
            self._retire(name)
            self._slots[name] = slot

        await self._do(load)

    async def unload_adapter(self, name: str) -> None:
        """Take no more tasks for an adapter; its memory is freed after the last answer under way."""
        await self._do(lambda: self._retire(name))

    def close(self) -> None:
        """End the thread after the present step; what is under way fails."""
        self._commands.put(self._stop)
        self._thread.join()

    async def _do(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()

        def command() -> None:
            try:
                action()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._commands.put(command)
        await asyncio.wrap_future(done)

    def _retire(self, name: str) -> None:
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._retired.append(slot)

    def _stop(self) -> None:
        self._closed = True

    def _run(self) -> None:
        while not self._closed:
            self._take_commands()
            self._busy_since = time.monotonic()
            try:
                self._scheduler.step()
            except Exception as error:  # whatever it was, it must not end the thread, and those who wait must hear it
                self._scheduler.fail(error)
            self._busy_since = None
            for slot in [slot for slot in self._retired if not self._scheduler.uses(slot)]:
                self._retired.remove(slot)
                self._adapters.unload(slot)
        self._scheduler.fail(RuntimeError("the engine was closed"))

    def _take_commands(self) -> None:
        """Do what was sent; wait for it where there is nothing to compute."""
        waits = self._scheduler.is_idle
        while True:
            try:
                self._commands.get(block=waits)()
            except Empty:
                return
            waits = False


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the model's own, and the one that the tokenizer closes a text with."""
    end: Any = model.generation_config.eos_token_id if model.generation_config else None
    named = end if isinstance(end, list) else [end]
    return frozenset(token for token in (*named, tokenizer.eos_token_id) if token is not None)
