"""The fast backend for CUDA: PEFT's model, with each decoder layer compiled and its LoRA layers fused.

Adapters are the `peft` backend's, byte for byte in name and shape. What differs is how fast they are trained; README.md
beside this file says by how much, and which part gives what.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.backends.peft import PeftBackend
from jobs.errors import EnvironmentNotReady, UsageError
from jobs.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FP8_CAPABILITY = (8, 9)
"""Compute capability of the first NVIDIA GPUs with FP8 matrix units (Ada; Hopper is 9.0)."""


class CompiledBackend(PeftBackend):
    """See `jobs.backends.Backend`."""

    name = "compiled"

    def prepare(self, settings: Settings) -> None:
        import torch

        if not torch.cuda.is_available():
            raise EnvironmentNotReady("train.backend=compiled needs a CUDA device; use train.backend=peft here")
        if settings.lora.method != "lora" or settings.lora.dropout > 0:
            raise UsageError(
                "train.backend=compiled trains lora.method=lora with lora.dropout=0; use train.backend=peft for others"
            )
        if settings.model.dtype == "float32":
            raise UsageError("train.backend=compiled multiplies in bf16 or fp8; use train.backend=peft for float32")
        if settings.model.quantization == "4bit":
            raise UsageError("train.backend=compiled holds the base as bf16 or fp8; 4bit is for peft and unsloth")
        if settings.model.quantization == "fp8" and torch.cuda.get_device_capability() < _FP8_CAPABILITY:
            raise EnvironmentNotReady("model.quantization=fp8 needs a GPU with FP8 units (compute capability 8.9)")

        from jobs.backends import frozen_head

        # Layers are compiled one by one, small enough for DDP to overlap their all-reduces without splitting graphs.
        torch._dynamo.config.optimize_ddp = False
        frozen_head.install()

    def load(self, settings: Settings, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = super().load(settings, folder)
        self.accelerate(settings, model)
        return model, tokenizer

    def accelerate(self, settings: Settings, model: Any) -> None:
        """Fuse, quantise and compile an adapted model in place."""
        from peft.tuners.lora import Linear
        from transformers.modeling_layers import GradientCheckpointingLayer

        from jobs.backends import packed_attention
        from jobs.backends.frozen_linear import fuse

        base = model.get_base_model()
        packed_attention.install(base, settings.data.max_length)
        for module in base.modules():
            if isinstance(module, Linear):
                fuse(module, fp8=settings.model.quantization == "fp8")
        model.enable_input_require_grads()  # the first layer then has the same graph as the others: one compilation
        layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
        share = settings.train.gradient_checkpointing
        if share:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        for i, layer in enumerate(layers):
            layer.gradient_checkpointing = i < round(share * len(layers))
            layer.compile(dynamic=False)

    def trainer_arguments(self, settings: Settings) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "loss_type": "chunked_nll",
            "gradient_checkpointing": False,
        }  # `accelerate` has set it
        if settings.data.packing != "off":  # every batch has the same size, so nothing is compiled twice
            arguments["pad_to_multiple_of"] = settings.train.batch_size * settings.data.max_length
        return arguments
