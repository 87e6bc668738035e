"""Our settings in TRL's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.backends import Backend
from jobs.settings import Settings


def sft_config(settings: Settings, backend: Backend, packed: bool, output: Path) -> Any:
    """`trl.SFTConfig` of one worker. `output` is its own scratch folder; checkpoints leave it through the callbacks."""
    import torch
    from trl import SFTConfig

    from jobs.backends.peft import precision

    train = settings.train
    on_gpu = torch.cuda.is_available()
    common: dict[str, Any] = {
        "output_dir": str(output),
        "num_train_epochs": train.epochs,
        "max_steps": train.max_steps or -1,
        "per_device_train_batch_size": train.batch_size,
        "per_device_eval_batch_size": settings.eval.batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.schedule,
        "warmup_steps": train.warmup,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "gradient_checkpointing": train.gradient_checkpointing > 0,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "seed": train.seed,
        "logging_steps": train.log_every_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it replaces NaN by the last finite loss; the guard must see it
        "eval_strategy": "steps",
        "eval_steps": train.checkpoint_every_steps,
        "save_strategy": "steps",
        "save_steps": train.checkpoint_every_steps,
        "save_total_limit": 1,  # the run directory keeps the others
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "bf16": precision(settings.model) == torch.bfloat16,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,  # PEFT's default of True breaks checkpointing and costs a graph walk
        "ddp_broadcast_buffers": False,  # no buffer changes in training, and 8-bit weights are buffers
        "max_length": settings.data.max_length,  # TRL's own default cuts at 1,024 without a word
        "packing": packed,
        "dataset_kwargs": {"skip_prepare_dataset": not packed},  # rows arrive tokenised, cut and labelled
        "eval_packing": False,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return SFTConfig(**(common | backend.trainer_arguments(settings)))
