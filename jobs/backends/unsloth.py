"""Unsloth loads, patches and adapts. It rewrites torch, transformers, TRL and PEFT when imported, so it comes first.

Some files of its wheel are under the AGPL; it is imported here when asked for, and nothing of it is copied.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.backends.peft import PeftBackend, precision
from jobs.errors import EnvironmentNotReady, UsageError
from jobs.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""What `all-linear` means in the model families that Unsloth patches."""
_MUST_COME_LATER = ("trl", "transformers", "peft")


class UnslothBackend(PeftBackend):
    """See `jobs.backends.Backend`."""

    name = "unsloth"

    def prepare(self, settings: Settings) -> None:
        import torch

        if not torch.cuda.is_available():
            raise EnvironmentNotReady("train.backend=unsloth needs a CUDA device; use train.backend=peft here")
        if settings.lora.method != "lora":
            raise UsageError("train.backend=unsloth trains lora.method=lora; use train.backend=peft for others")
        if settings.model.quantization == "8bit":
            raise UsageError("train.backend=unsloth holds the base as bf16 or 4bit; 8bit is for compiled")
        too_early = [name for name in _MUST_COME_LATER if name in sys.modules]
        if "unsloth" not in sys.modules and too_early:
            raise EnvironmentNotReady(f"unsloth must be imported before {', '.join(too_early)}; start a new process")
        # Workers that share one cache deadlock on it while it is cold (unsloth-zoo issue 967).
        rank = os.environ.get("RANK", "0")
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", f"{tempfile.gettempdir()}/unsloth-{os.getuid()}-{rank}")
        try:
            import unsloth  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        except ImportError as error:
            raise EnvironmentNotReady(f"train.backend=unsloth: {error}; install the gpu extra") from None

    def load(self, settings: Settings, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from unsloth import FastLanguageModel  # type: ignore[import-not-found,import-untyped,unused-ignore]

        lora, seed = settings.lora, settings.train.seed
        model, tokenizer = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=settings.data.max_length,
            dtype=precision(settings.model),
            load_in_4bit=settings.model.quantization == "4bit",
            trust_remote_code=settings.model.trust_remote_code,
            local_files_only=True,
        )
        model = FastLanguageModel.get_peft_model(
            model,
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=_TARGETS if lora.target_modules == "all-linear" else list(lora.target_modules),
            bias="none",
            use_rslora=lora.rank_stabilized,
            use_gradient_checkpointing="unsloth" if settings.train.gradient_checkpointing else False,
            random_state=seed,
        )
        return model, tokenizer

    def trainer_arguments(self, settings: Settings) -> dict[str, Any]:
        return {"gradient_checkpointing": bool(settings.train.gradient_checkpointing)}
