"""Which model is meant by a name, where its weights are, and what identifies them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jobs import models, trained
from jobs.errors import IntegrityError, UsageError
from jobs.evaluation.benchmark import Loaded
from jobs.settings import DataSettings, ModelSettings, Settings, from_yaml
from jobs.storage import Storage
from jobs.trained import Weights

_PROBE = "안녕하세요. The quick brown fox."
_RUN_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate. `origin` is the base it was made from; `data`, known of a run, what it was trained on."""

    name: str
    weights: Weights
    origin: Weights | None = None
    data: DataSettings | None = None

    @property
    def base(self) -> Candidate | None:
        """What the model was made from, where that is known."""
        return Candidate(f"{self.origin.settings.source} (untouched)", self.origin) if self.origin else None

    def identity(self) -> dict[str, str]:
        """sha256 of the base's weights, configuration and tokenizer, and of the adapter's."""
        return self.weights.identity()

    def load(self) -> Loaded:
        """The model, ready to be asked. Raises IntegrityError if it makes no sense of a plain sentence."""
        import torch

        from jobs.training.scoring import scoring

        model, tokenizer = self.weights.load()
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        known = model.get_input_embeddings().weight.shape[0]
        ids = tokenizer(_PROBE)["input_ids"]
        if len(tokenizer) > known:
            raise UsageError(
                f"{self.name}: its tokenizer has {len(tokenizer):,} tokens and the model knows {known:,}: it "
                "is another model's; put the right one beside the weights"
            )
        with scoring(model) as device:
            finite = bool(torch.isfinite(model(torch.tensor([ids], device=device)).logits).all())
        if not finite:
            raise IntegrityError(
                f"{self.name}: its logits are not finite; the weights are damaged or do not fit this precision "
                "(try model.dtype=float32)"
            )
        return Loaded(self.name, model, tokenizer)


@contextmanager
def find(storage: Storage, name: str | None, settings: Settings) -> Iterator[Candidate]:
    """The model that `name` means (see `EvaluateSettings.subject`), on this machine for as long as the context lasts.

    Raises UsageError for a name that means nothing, EnvironmentNotReady for what is out of reach, and IntegrityError
    for bytes that are not what their manifest says.
    """
    if name is None or (_RUN_NAME.fullmatch(name) and not Path(name).is_dir()):
        run = trained.find(storage, name)
        with trained.model_folder(run) as folder:
            tree = from_yaml(run.config(), run.address("config.yaml"))
            origin = Weights(tree.model, models.resolve(tree.model), None)
            yield Candidate(run.id, trained.weights(run, folder), origin, tree.data)
        return
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        adapter = _adapter_folder(name, Path(scratch))
        if adapter is None:
            whole = settings.model.model_copy(update={"source": name})
            yield Candidate(name, Weights(whole, models.resolve(whole), None))
        else:
            origin = _base_of(name, adapter, settings.model)
            yield Candidate(name, replace(origin, adapter=adapter), origin)


def _adapter_folder(name: str, scratch: Path) -> Path | None:
    """The adapter in a folder on disk or S3, as a local folder; None if `name` is no adapter's."""
    if name.startswith("s3://"):
        parent, _, last = name.rstrip("/").rpartition("/")
        storage = Storage(parent)
        if not storage.exists(f"{last}/{trained.ADAPTER_CONFIG}"):
            return None
        storage.fetch_tree(last, scratch / "adapter")
        return scratch / "adapter"
    folder = Path(name.removeprefix("file://")).expanduser()
    return folder if (folder / trained.ADAPTER_CONFIG).is_file() else None


def _base_of(name: str, folder: Path, model: ModelSettings) -> Weights:
    base = json.loads((folder / trained.ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UsageError(f"{name}: {trained.ADAPTER_CONFIG} names no base model; evaluate its run by id")
    settings = model.model_copy(update={"source": base})
    try:
        return Weights(settings, models.resolve(settings), None)
    except UsageError as error:
        raise UsageError(f"{name}: its base model cannot be found: {error}; evaluate its run by id") from None
