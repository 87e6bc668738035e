"""Ray Serve as `make serve` starts it, with the engine on a model small enough for a test."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from jobs.backends.peft import with_adapter
from jobs.settings import LoraSettings

CONTEXT_TOKENS = 4000


@dataclass(frozen=True)
class Served:
    """The application's address, and what it was made of."""

    url: str
    tree: dict[str, Any]
    adapters: dict[str, Path]

    def push(self, adapters: dict[str, str]) -> None:
        """Push a configuration with these adapters, by name."""
        from jobs.serving import app, local

        local.deploy(app.build(self.tree | {"serving": self.tree["serving"] | {"adapters": adapters}}))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Folders of a tiny base and of two adapters over it."""
    base = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = tiny.tokenizer()
    torch.manual_seed(7)
    model = tiny.model(len(tokenizer))
    model.config.max_position_embeddings = CONTEXT_TOKENS
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
        model.lm_head.weight[tokenizer.eos_token_id] = 0  # greedy answers end by their limit: tests know their length
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapters = {}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        adapted = with_adapter(type(model).from_pretrained(base), LoraSettings(rank=4))
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.5)
        adapters[name] = base.parent / name
        for config in adapted.peft_config.values():
            config.base_model_name_or_path = str(base)
        adapted.save_pretrained(adapters[name])
    return base, adapters


@pytest.fixture(scope="module")
def served(models: tuple[Path, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The application over real HTTP: base `tiny`, adapter `one`, two rows at a time.

    Down again after its module: a process has one Ray, and other modules start theirs.
    """
    from jobs.serving import app, local

    base, adapters = models
    tree: dict[str, Any] = {
        "model": {"source": str(base)},
        "storage": {"root": str(tmp_path_factory.mktemp("storage"))},
        "serving": {
            "context_tokens": CONTEXT_TOKENS,
            "most_rows": 2,
            "max_ongoing_requests": 3,
            "max_queued_requests": 2,
            "adapters": {"one": str(adapters["one"])},
        },
    }
    with local.serve_here(0) as url:
        local.deploy(app.build(tree))
        yield Served(url, tree, adapters)
