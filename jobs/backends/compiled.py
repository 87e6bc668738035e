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

EIGHT_BIT_CAPABILITY = (9, 0)
"""Compute capability of the first NVIDIA GPUs that can run the 8-bit kernels (Hopper): bulk copies and 200 KB of shared
memory."""


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
            raise UsageError("train.backend=compiled multiplies in bf16 or 8 bits; use train.backend=peft for float32")
        if settings.model.quantization == "4bit":
            raise UsageError("train.backend=compiled holds the base as bf16 or 8bit; 4bit is for peft and unsloth")
        if settings.model.quantization == "8bit" and torch.cuda.get_device_capability() < EIGHT_BIT_CAPABILITY:
            raise EnvironmentNotReady(
                "model.quantization=8bit needs a Hopper GPU or a newer one (compute capability 9.0)"
            )

        from jobs.backends import frozen_head

        # Layers are compiled one by one, small enough for DDP to overlap their all-reduces without splitting graphs.
        torch._dynamo.config.optimize_ddp = False
        frozen_head.install()

    def load(self, settings: Settings, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = super().load(settings, folder)
        factors: dict[Any, Any] = {}
        if settings.model.quantization == "8bit":
            from jobs.backends.smoothing import calibration_ids, measure

            factors = measure(model, calibration_ids(tokenizer).to(model.device))
        self.accelerate(settings, model, factors)
        return model, tokenizer

    def accelerate(self, settings: Settings, model: Any, factors: dict[Any, Any]) -> None:
        """Fuse and compile an adapted model in place; a layer with `factors` is held in 8 bits."""
        import torch
        from peft.tuners.lora import Linear
        from transformers.modeling_layers import GradientCheckpointingLayer

        from jobs.backends import packed_attention
        from jobs.backends.frozen_linear import fuse

        base = model.get_base_model()
        packed_attention.install(base, settings.data.max_length)
        for module in base.modules():
            if isinstance(module, Linear):
                fuse(module, factors.get(module))
        # Every rank has the same 8-bit weights from the same file; DDP would send them round once more.
        buffers = [name for name, _ in model.named_buffers()]
        ignore = torch.nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(model, buffers)  # type: ignore[no-untyped-call]
        model.enable_input_require_grads()  # the first layer then has the same graph as the others: one compilation
        layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
        share = settings.train.gradient_checkpointing
        if share:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        for i, layer in enumerate(layers):
            layer.gradient_checkpointing = i < round(share * len(layers))
            layer.compile(dynamic=False)

    def trainer_arguments(self, settings: Settings) -> dict[str, Any]:
        arguments = super().trainer_arguments(settings) | {
            "loss_type": "chunked_nll",
            "gradient_checkpointing": False,  # `accelerate` has set it
        }
        if settings.data.packing != "off":  # every batch has the same size, so nothing is compiled twice
            arguments["pad_to_multiple_of"] = settings.train.batch_size * settings.data.max_length
        return arguments
