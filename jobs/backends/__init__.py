"""How training touches a model: load it, adapt it, compare with the untouched base, save what was learnt.

A backend is chosen by `train.backend`. Its module is imported only when it is chosen, and `prepare()` runs before
anything else heavy is imported in the process, because some libraries must patch others first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Backend(Protocol):
    """One way to train. Stateless: the model carries all state."""

    name: str

    def prepare(self, settings: Settings) -> None:
        """Check that this process can run the backend and do imports that must come first.

        Raises EnvironmentNotReady when a device or package is missing.
        """

    def load(self, settings: Settings, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model with a fresh adapter attached (none for full fine-tuning), in training precision, and its tokenizer."""

    def trainer_arguments(self, settings: Settings) -> dict[str, Any]:
        """What `trl.SFTConfig` needs beyond the common arguments."""

    def untouched(self, model: PreTrainedModel, folder: Path) -> AbstractContextManager[PreTrainedModel]:
        """The base model as it was before training, for as long as the context lasts."""

    def load_trained(self, model: PreTrainedModel, folder: Path) -> None:
        """Put the trained weights saved in `folder` into `model`."""

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write what was trained (adapter, or all weights) as safetensors."""


def choose(settings: Settings) -> Backend:
    """The backend that `settings` ask for; `auto`, where the planner has not replaced it, is `peft`."""
    if settings.train.backend == "compiled":
        from jobs.backends.compiled import CompiledBackend

        return CompiledBackend()
    if settings.train.backend == "unsloth":
        from jobs.backends.unsloth import UnslothBackend

        return UnslothBackend()
    from jobs.backends.peft import PeftBackend

    return PeftBackend()
