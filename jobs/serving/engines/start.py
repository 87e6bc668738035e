"""A replica's engine `transformers`: loaded from checked files, warmed up, with the adapters that the settings name."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from jobs import models
from jobs.backends.peft import load_base
from jobs.serving import source
from jobs.serving.engines.task import Sampling, Task
from jobs.serving.engines.transformers import TransformersEngine
from jobs.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_WARM_UP_TOKENS = 4


class Replica:
    """Engine, tokenizer and the adapters that are loaded. `close` ends it."""

    def __init__(self, tree: Settings) -> None:
        """Raises what `source.base` raises."""
        serving = tree.serving
        torch.set_num_threads(max(1, min(int(serving.cpus_per_replica), os.cpu_count() or 1)))
        began = time.monotonic()
        self._tree, folder = tree, source.base(tree)
        self._base_sha256 = models.identity(folder)
        model = load_base(tree.model, folder)
        self.tokenizer = models.read_tokenizer(tree.model, folder)
        self.context_tokens = min(serving.context_tokens, _longest_context(model))
        self._adapters: dict[str, str] = {}
        """Name to address of what is loaded."""
        name = str(source.named(tree).serving.name)
        self.engine = TransformersEngine(name, model, self.tokenizer, serving.most_rows, serving.prefill_tokens)
        _log.info("%s loaded in %.1f s", name, time.monotonic() - began)

    async def set_adapters(self, wanted: Mapping[str, str]) -> None:
        """Load what is new or has another address, then drop what is gone; answers under way go on as they began.

        Raises as `source.adapter` does for one that cannot be loaded: nothing is dropped then, those before it stay.
        """
        for name, address in wanted.items():
            if self._adapters.get(name) != address:
                await self._load(name, address)
        for name in [name for name in self._adapters if name not in wanted]:
            await self.engine.unload_adapter(name)
            del self._adapters[name]

    async def warm_up(self) -> None:
        """Go through prompt, batch and sampling once for the base and each adapter, so that no client waits for it."""
        prompt = tuple(self.tokenizer("안녕하세요")["input_ids"])
        choices = min(2, self._tree.serving.most_rows)
        for_all = Task("", prompt, _WARM_UP_TOKENS, Sampling(top_p=0.9), choices=choices)
        await asyncio.gather(*(self._drain(replace(for_all, model=name)) for name in self.engine.models))

    async def _load(self, name: str, address: str) -> None:
        began = time.monotonic()
        with ExitStack() as stack:
            adapter = source.adapter(self._tree, self._base_sha256, address)
            folder = await asyncio.to_thread(stack.enter_context, adapter)
            await self.engine.load_adapter(name, folder)
        self._adapters[name] = address
        _log.info("adapter %s loaded in %.1f s", name, time.monotonic() - began)

    async def _drain(self, task: Task) -> None:
        async for _ in self.engine.generate(task):
            pass


def _longest_context(model: PreTrainedModel) -> int:
    """Tokens that the model was made for."""
    longest: int = model.config.get_text_config().max_position_embeddings
    return longest
