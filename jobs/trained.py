"""Loading what a run made: its base model with its adapter on top, or its full weights."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import models, settings
from jobs.backends.peft import load_base
from jobs.errors import IntegrityError
from jobs.runs import Run, latest
from jobs.settings import ModelSettings, Settings
from jobs.storage import Storage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
"""The file that tells an adapter's folder from a whole model's."""
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Weights:
    """What a model is loaded from: a folder of whole weights, and on top of them an adapter's folder or nothing."""

    settings: ModelSettings
    base: Path
    adapter: Path | None

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Base and adapter as they were trained (adapter not merged), and the tokenizer, ready to generate."""
        from peft import PeftModel

        tokenizer = models.read_tokenizer(self.settings, self._tokenizer_folder())
        model = load_base(self.settings, self.base)
        if self.adapter is not None:
            with models.loading(self.adapter):
                model = PeftModel.from_pretrained(model, self.adapter)
        return model.eval(), tokenizer

    def identity(self) -> dict[str, str]:
        """sha256 of the base's weights and configuration, and of the adapter's."""
        parts = {"base_sha256": models.identity(self.base)}
        return parts | ({"adapter_sha256": models.identity(self.adapter)} if self.adapter else {})

    def tokenizer_sha256(self) -> str:
        """sha256 of vocabulary, merges and rules: two models with the same cut a text into the same tokens."""
        with models.loading(self._tokenizer_folder()):
            stored = json.loads((self._tokenizer_folder() / TOKENIZER).read_text(encoding="utf-8"))
        rules = {key: stored.get(key) for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()

    def _tokenizer_folder(self) -> Path:
        return self.adapter if self.adapter and (self.adapter / TOKENIZER).is_file() else self.base


def find(storage: Storage, run_id: str | None) -> Run:
    """The run named, or the training run that finished last. Raises UsageError if there is none."""
    return Run.open(storage, run_id or latest(storage, "train"))


@contextmanager
def model_folder(run: Run) -> Iterator[Path]:
    """The run's `model/` folder on this machine, verified against its checksums."""
    run.result()  # a run that did not finish has no model to trust
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        folder = Path(scratch) / "model"
        run.storage.fetch_tree(run.path("model"), folder)
        yield folder


def weights(run: Run, folder: Path) -> Weights:
    """What the run's model is loaded from; `folder` is its `model/`.

    Raises IntegrityError when the base model is not the one that the adapter was trained on.
    """
    tree: Settings = settings.from_yaml(run.config(), run.address("config.yaml"))
    if tree.lora.method == "full":
        return Weights(tree.model, folder, None)
    base = models.resolve(tree.model)
    if models.identity(base) != run.result()["base_model_sha256"]:
        raise IntegrityError(f"{run.id}: {tree.model.source} is not the base model that this adapter was trained on")
    return Weights(tree.model, base, folder)


def load(run: Run, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The run's model and its tokenizer, ready to generate. Raises IntegrityError as `weights` does."""
    return weights(run, folder).load()
