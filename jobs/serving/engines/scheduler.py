"""Which rows take part in the next forward pass: continuous batching.

Each step computes prompts, no more tokens than one chunk has, and then one token of every running row. A row joins as
soon as its prompt is computed and leaves with its last token, whatever the others do; a long prompt holds the others up
for no longer than one chunk, and short ones that come together start together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from jobs.serving.engines.adapters import Adapters, Slot
from jobs.serving.engines.cache import RowCache
from jobs.serving.engines.sampling import Sampler, draw
from jobs.serving.engines.task import Finish, Piece, Task
from jobs.serving.engines.text import Detokenizer, StopFilter


@dataclass(eq=False)
class Job:
    """A task on its way."""

    task: Task
    slot: Slot
    deliver: Callable[[Piece | BaseException], None]
    """Takes each piece, or what ended the job; called in the computing thread."""
    cancelled: bool = False
    """Set when nobody wants the answer any more."""


@dataclass(eq=False)
class _Row:
    """One answer on its way."""

    job: Job
    choice: int
    sampler: Sampler
    detokenizer: Detokenizer
    stops: StopFilter
    tokens: int = 0
    last: int = 0
    """The token drawn last, not computed yet."""


@dataclass(eq=False)
class _Prefill:
    """A prompt of which a part is computed."""

    job: Job
    cache: DynamicCache = field(default_factory=DynamicCache)
    done: int = 0


@dataclass(eq=False)
class _Batch:
    """Rows that share forward passes."""

    cache: RowCache
    rows: list[_Row] = field(default_factory=list)


class Scheduler:
    """Runs jobs; see the module's docstring. For the computing thread alone."""

    def __init__(
        self,
        adapters: Adapters,
        decode: Callable[[Sequence[int]], str],
        end_tokens: frozenset[int],
        most_rows: int,
        prefill_tokens: int,
    ) -> None:
        self._adapters, self._decode, self._end_tokens = adapters, decode, end_tokens
        self._most_rows, self._prefill_tokens = most_rows, prefill_tokens
        self._layers = adapters.model.config.get_text_config().num_hidden_layers
        self._device = adapters.model.device
        self._waiting: deque[Job] = deque()
        self._prefill: _Prefill | None = None
        self._batches: dict[Slot, _Batch] = {None: _Batch(RowCache(self._layers, most_rows))}
        """By adapter, for those that need passes of their own; under None all others."""

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._waiting and self._prefill is None and not any(self._rows())

    @property
    def running(self) -> int:
        """Answers that take part in forward passes."""
        return sum(1 for _ in self._rows())

    def add(self, job: Job) -> None:
        """Queue a job; its choices are computed side by side."""
        self._waiting.append(job)

    def uses(self, slot: Slot) -> bool:
        """Whether a job on its way needs this adapter."""
        jobs = [*self._waiting, *([self._prefill.job] if self._prefill else []), *(row.job for row in self._rows())]
        return any(job.slot == slot for job in jobs)

    @torch.inference_mode()
    def step(self) -> None:
        """Prompts of up to one chunk's tokens, and one token for every running row."""
        self._drop_cancelled()
        self._compute_prompts()
        for slot, batch in list(self._batches.items()):
            if batch.rows:
                self._compute_rows(batch)
            elif slot is not None:
                del self._batches[slot]

    def fail(self, error: BaseException) -> None:
        """End every job with `error`."""
        jobs = {*self._waiting, *([self._prefill.job] if self._prefill else []), *(row.job for row in self._rows())}
        self._waiting.clear()
        self._prefill = None
        self._batches = {None: _Batch(RowCache(self._layers, self._most_rows))}
        for job in jobs:
            job.deliver(error)

    def _rows(self) -> Iterator[_Row]:
        return (row for batch in self._batches.values() for row in batch.rows)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        if self._prefill and self._prefill.job.cancelled:
            self._prefill = None
        for batch in self._batches.values():
            _remove(batch, [row for row in batch.rows if row.job.cancelled])

    def _compute_prompts(self) -> None:
        """A prompt's chunks never depend on its company, so neither do its numbers."""
        left = self._prefill_tokens
        while prefill := self._next_prompt():
            chunk = prefill.job.task.prompt[prefill.done : prefill.done + self._prefill_tokens]
            if len(chunk) > left:
                return
            left -= len(chunk)
            self._compute_chunk(prefill, chunk)

    def _next_prompt(self) -> _Prefill | None:
        """The prompt that is under way, else the one that waits longest, if there are rows for its answers."""
        if self._prefill or not self._waiting:
            return self._prefill
        if self.running + self._waiting[0].task.choices <= self._most_rows:
            self._prefill = _Prefill(self._waiting.popleft())
        return self._prefill

    def _compute_chunk(self, prefill: _Prefill, chunk: Sequence[int]) -> None:
        output = self._adapters.forward(
            [prefill.job.slot],
            input_ids=torch.tensor([chunk], device=self._device),
            past_key_values=prefill.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        prefill.done += len(chunk)
        if prefill.done == len(prefill.job.task.prompt):
            self._prefill = None
            self._start(prefill, output.logits[:, -1].float())

    def _start(self, prefill: _Prefill, logits: torch.Tensor) -> None:
        """Let the answers to a computed prompt join their batch, with their first token drawn."""
        job = prefill.job
        key = job.slot if self._adapters.is_exclusive(job.slot) else None
        batch = self._batches.setdefault(key, _Batch(RowCache(self._layers, self._most_rows)))
        rows = [
            _Row(
                job,
                choice,
                Sampler.of(job.task.sampling, choice),
                Detokenizer(self._decode),
                StopFilter(job.task.stops),
            )
            for choice in range(job.task.choices)
        ]
        tokens = draw(logits.repeat(len(rows), 1), [row.sampler for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            if not self._take(row, token):
                batch.cache.join(prefill.cache)
                batch.rows.append(row)

    def _compute_rows(self, batch: _Batch) -> None:
        cache, rows = batch.cache, batch.rows
        cache.prepare()
        output = self._adapters.forward(
            [row.job.slot for row in rows],
            input_ids=torch.tensor([[row.last] for row in rows], device=self._device),
            position_ids=torch.tensor([[length] for length in cache.lengths], device=self._device),
            attention_mask=cache.mask(self._device),
            past_key_values=cache,
            use_cache=True,
        )
        cache.advance()
        tokens = draw(output.logits[:, -1].float(), [row.sampler for row in rows])
        _remove(batch, [row for row, token in zip(list(rows), tokens, strict=True) if self._take(row, token)])

    def _take(self, row: _Row, token: int) -> bool:
        """Deliver what `token` adds to an answer; whether that ends it."""
        row.last = token
        row.tokens += 1
        finish: Finish | None = None
        text = ""
        if token in self._end_tokens:
            finish = "stop"
        else:
            text = row.stops.push(row.detokenizer.push(token))
            if row.stops.hit:
                finish = "stop"
            elif row.tokens == row.job.task.max_tokens:
                finish = "length"
        if finish and not row.stops.hit:
            text += row.stops.rest()
        row.job.deliver(Piece(row.choice, text, row.tokens, finish))
        return finish is not None


def _remove(batch: _Batch, gone: Sequence[_Row]) -> None:
    for row in gone:
        index = batch.rows.index(row)
        batch.cache.leave(index)
        batch.rows[index] = batch.rows[-1]
        batch.rows.pop()
