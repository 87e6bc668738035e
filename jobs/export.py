"""`make export`: merge an adapter into its base and write plain safetensors that any loader takes.

    python -m jobs.export --run train-20261122-101500-3fa9 --output my-model

Merging is where models silently break (rounding, quantised bases, tied embeddings), so the merged weights are loaded
again from disk and must give the same logits as base plus adapter; otherwise nothing is left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import cli, settings, trained
from jobs.errors import EnvironmentNotReady, IntegrityError, UsageError
from jobs.manifest import write_manifest
from jobs.storage import Storage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = ("안녕하세요. 오늘 날씨가 어떤가요?", "대한민국의 수도는 서울이다.", "def add(a, b):\n    return a + b")
MAX_DIVERGENCE_NATS = 1e-3
"""Largest KL divergence from the unmerged to the merged next-token distribution, over all probe positions. Rounding
the sum of base and adapter to bfloat16 stays one to two orders below; a lost adapter or wrong scale far above."""


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("--run", metavar="RUN_ID", help="default: the training run that finished last")
    options.add_argument("--output", type=Path, metavar="FOLDER", help="default: output/exports/<run-id>")
    arguments = options.parse_args()
    tree = settings.load(arguments.config, arguments.overrides)
    run = trained.find(Storage(tree.storage.root), arguments.run)
    target: Path = arguments.output or Path("output/exports") / run.id
    if target.exists():
        raise UsageError(f"--output: {target} exists already; choose another folder or delete it")
    with trained.model_folder(run) as folder:
        model, tokenizer = trained.load(run, folder)
        divergence = export(model, tokenizer, target)
    print(f"{target}: merged model, logits as before (largest divergence {divergence:.1e} nats)")


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, target: Path) -> float:
    """Merge `model`'s adapter, write it to `target`, and return the largest divergence that merging caused, in nats.

    Raises IntegrityError, leaving no `target`, if the merged model as read back from disk differs by more than
    MAX_DIVERGENCE_NATS. The sum is taken in float32; it is stored in the precision that the base had.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = model.dtype
    before = [_log_probabilities(model, tokenizer, text) for text in PROBES]
    merged = model.float().merge_and_unload() if hasattr(model, "merge_and_unload") else model
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise EnvironmentNotReady(f"{target.parent}: cannot be written ({error.strerror})") from None
    try:
        merged.to(dtype).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        reloaded = AutoModelForCausalLM.from_pretrained(scratch, dtype=dtype, use_safetensors=True).eval()
        after = [_log_probabilities(reloaded, tokenizer, text) for text in PROBES]
        divergence = max(
            float(torch.nn.functional.kl_div(b, a, log_target=True, reduction="none").sum(-1).max())
            for a, b in zip(before, after, strict=True)
        )
        if not divergence <= MAX_DIVERGENCE_NATS:
            raise IntegrityError(
                f"merged and unmerged logits differ ({divergence:.2g} nats, allowed {MAX_DIVERGENCE_NATS:g}); "
                "serve base and adapter unmerged, or train with model.dtype=float32"
            )
        write_manifest(scratch)
        scratch.rename(target)
    except OSError as error:
        raise EnvironmentNotReady(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return divergence


def _log_probabilities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> torch.Tensor:
    """Next-token log-probabilities at each position of `text`, float32, shape (tokens, vocabulary)."""
    import torch

    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        logits: torch.Tensor = model(**inputs).logits[0]
    return logits.float().log_softmax(-1).cpu()


if __name__ == "__main__":
    cli.main(main)
