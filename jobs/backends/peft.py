"""The reference backend: transformers loads, PEFT adapts. Any device, bf16 or fp32, LoRA, rsLoRA, DoRA or full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.backends import sharding
from jobs.errors import EnvironmentNotReady, UsageError
from jobs.models import loading, read_tokenizer
from jobs.settings import LoraSettings, ModelSettings, Settings

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PeftBackend:
    """See `jobs.backends.Backend`."""

    name = "peft"

    def prepare(self, settings: Settings) -> None:
        if settings.model.quantization == "none":
            return
        import torch

        if not torch.cuda.is_available():
            raise EnvironmentNotReady("model.quantization=4bit needs a CUDA device; use model.quantization=none here")

    def load(self, settings: Settings, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        import torch
        from peft import prepare_model_for_kbit_training

        tokenizer = read_tokenizer(settings.model, folder)
        model = load_base(settings.model, folder, sharded=settings.scaling.is_sharded)
        if settings.lora.method == "full":
            return model, tokenizer
        if settings.model.quantization == "4bit":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        torch.manual_seed(settings.train.seed)  # the adapter's A matrices are drawn here, alike on every rank
        return with_adapter(model, settings.lora), tokenizer

    def trainer_arguments(self, settings: Settings) -> dict[str, Any]:
        return sharding.ARGUMENTS if settings.scaling.is_sharded else {}

    @contextmanager
    def untouched(self, model: PreTrainedModel, folder: Path) -> Iterator[PreTrainedModel]:
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                yield model
        else:
            yield load_base(ModelSettings(source=str(folder)), folder).to(model.device)

    def load_trained(self, model: PreTrainedModel, folder: Path) -> None:
        from safetensors.torch import load_file

        if sharding.is_sharded(model):
            sharding.put(model, load_file(folder / "adapter_model.safetensors"))
        elif hasattr(model, "peft_config"):
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        else:
            model.load_state_dict(type(model).from_pretrained(folder, dtype=model.dtype).state_dict())

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        if sharding.is_sharded(model):
            sharding.save(model, folder)
        else:
            model.save_pretrained(folder)


def with_adapter(model: PreTrainedModel, lora: LoraSettings) -> PeftModel:
    """`model` with the fresh adapter that `lora` describes. Raises UsageError if none of its layers is meant."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rank_stabilized,
        use_dora=lora.method == "dora",
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"lora.target_modules: {error}") from None


def load_base(settings: ModelSettings, folder: Path, sharded: bool = False) -> PreTrainedModel:
    """The base model in its training precision, from safetensors only, on the device of this process.

    With `sharded` it stays in host memory, on the first worker alone, until the trainer splits it.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would tear the run's own bar
    arguments: dict[str, Any] = {}
    if settings.quantization == "4bit":
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    on_gpu = torch.cuda.is_available() and not sharded
    with loading(folder), sharding.loading_once() if sharded else nullcontext():
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=precision(settings),
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
            device_map={"": torch.cuda.current_device()} if on_gpu else None,
            **arguments,
        )


def precision(settings: ModelSettings) -> torch.dtype:
    """Precision of the frozen weights: what the settings say, else bfloat16 where the device multiplies it natively.

    A CPU without bf16 instructions takes about 20 times longer in bfloat16 than in float32 (measured: 2 against 44
    GFLOP/s on two AVX2 cores).
    """
    import torch

    if settings.dtype != "auto":
        dtype: torch.dtype = getattr(torch, settings.dtype)
        return dtype
    native = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32
