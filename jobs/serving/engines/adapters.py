"""Adapters over one base model, loaded and unloaded while it serves, several of them in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import models
from jobs.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Slot = str | None
"""PEFT's name of an adapter that is loaded, never used twice; None: the base without any."""

_BASE = "__base__"
"""PEFT's name for rows without an adapter."""
_MIXED = "mixed"


class Adapters:
    """The model with the adapters that it holds. For the computing thread alone."""

    def __init__(self, base: PreTrainedModel) -> None:
        self.model: Any = base
        self._numbers = count()
        self._active: Slot = None
        """What a pass goes through now: one adapter, none, or each row through its own (`_MIXED`)."""

    def load(self, folder: Path) -> str:
        """Add an adapter. Raises UsageError if the files do not fit this base."""
        from peft import PeftModel

        slot = f"a{next(self._numbers)}"
        try:
            with models.loading(folder):
                if self._slots:
                    self.model.load_adapter(folder, slot)
                else:
                    self.model = PeftModel.from_pretrained(self.model, folder, slot)
        except RuntimeError as error:  # torch's word for tensors of other shapes
            raise UsageError(f"{folder}: is no adapter for this base model: {str(error).splitlines()[0]}") from None
        self.model.eval()
        self._disable()
        return slot

    def unload(self, slot: str) -> None:
        """Forget an adapter that no row uses any more."""
        self._disable()
        if self._slots == {slot}:
            self.model = self.model.unload()
        else:
            self.model.delete_adapter(slot)

    def is_exclusive(self, slot: Slot) -> bool:
        """Whether its rows need a pass of their own: PEFT mixes plain LoRA in one pass, DoRA not."""
        return slot is not None and bool(self.model.peft_config[slot].use_dora)

    def forward(self, slots: Sequence[Slot], **inputs: Any) -> Any:
        """A pass in which row i goes through the adapter `slots[i]`."""
        if len(set(slots)) == 1:
            self._select(slots[0])
            return self.model(**inputs)
        self._select(_MIXED)
        return self.model(**inputs, adapter_names=[slot or _BASE for slot in slots])

    @property
    def _slots(self) -> set[str]:
        return set(getattr(self.model, "peft_config", ()))

    def _select(self, wanted: Slot) -> None:
        if wanted == self._active:
            return
        if wanted is None:
            self._disable()
            return
        if self._active is None:
            self.model.base_model.enable_adapter_layers()
        if wanted != _MIXED:
            self.model.base_model.set_adapter(wanted, inference_mode=True)
        self._active = wanted

    def _disable(self) -> None:
        self.model.base_model.disable_adapter_layers()
        self._active = None
