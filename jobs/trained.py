"""Loading what a run made: its base model with its adapter on top, or its full weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import models, settings
from jobs.backends.peft import load_base
from jobs.errors import IntegrityError
from jobs.runs import Run, latest
from jobs.settings import Settings
from jobs.storage import Storage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


def load(run: Run, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Base and adapter as they were trained (adapter not merged), and the tokenizer, ready to generate.

    Raises IntegrityError when the base model is not the one that the adapter was trained on.
    """
    from peft import PeftModel

    tree: Settings = settings.from_yaml(run.config(), run.address("config.yaml"))
    tokenizer = models.read_tokenizer(tree.model, folder)
    if tree.lora.method == "full":
        return load_base(tree.model, folder).eval(), tokenizer
    base_folder = models.resolve(tree.model)
    expected = run.result()["base_model_sha256"]
    if models.identity(base_folder) != expected:
        raise IntegrityError(f"{run.id}: {tree.model.source} is not the base model that this adapter was trained on")
    return PeftModel.from_pretrained(load_base(tree.model, base_folder), folder).eval(), tokenizer
