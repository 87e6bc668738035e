"""The report of a run: base against result on the same tokens, answers side by side, the loss curve."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.backends import Backend
from jobs.dataset import Prepared, Prompt
from jobs.generation import answer
from jobs.redact import redact
from jobs.runs import EventLog, Run
from jobs.settings import Settings
from jobs.training.scoring import Score, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answers:
    """One held-out prompt with the reference, the base model's answer and the trained model's."""

    prompt: str
    reference: str
    base: str
    trained: str


@dataclass(frozen=True)
class Comparison:
    """Base and trained model on the same held-out tokens."""

    base: Score
    trained: Score
    answers: tuple[Answers, ...]

    def numbers(self) -> dict[str, float | int]:
        """Flat figures for `result.json` and MLflow."""
        return {
            "held_out_tokens": self.trained.tokens,
            "base_loss": self.base.loss,
            "base_perplexity": self.base.perplexity,
            "eval_loss": self.trained.loss,
            "eval_perplexity": self.trained.perplexity,
            "perplexity_reduction": 1 - self.trained.perplexity / self.base.perplexity,
        }


def compare(
    settings: Settings,
    backend: Backend,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    data: Prepared,
) -> Comparison:
    """Score both models on the held-out rows and let both answer the first `eval.generations` prompts, greedily."""
    rows = list(data.held_out)
    prompts = data.prompts[: settings.eval.generations]
    limit, size = settings.eval.max_new_tokens, settings.eval.batch_size
    assert isinstance(tokenizer.pad_token_id, int)
    trained = score(model, rows, size, tokenizer.pad_token_id)
    trained_answers = _answers(model, tokenizer, prompts, limit)
    with backend.untouched(model, folder) as base_model:
        base = score(base_model, rows, size, tokenizer.pad_token_id)
        base_answers = _answers(base_model, tokenizer, prompts, limit)
    answers = (
        Answers(p.text, p.reference, b, t) for p, b, t in zip(prompts, base_answers, trained_answers, strict=True)
    )
    return Comparison(base, trained, tuple(answers))


def publish(run: Run, result: dict[str, Any], comparison: Comparison, events: EventLog) -> None:
    """Write `report/`: `report.json`, `report.md` and `loss.png`."""
    answers = [vars(a) for a in comparison.answers]
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        text = json.dumps({"result": result, "answers": answers}, ensure_ascii=False, indent=2, default=str)
        (target / "report.json").write_text(redact(text) + "\n", encoding="utf-8")
        (target / "report.md").write_text(redact(_markdown(run.id, result, comparison)), encoding="utf-8")
        plot_curve(curve(events), result["base_loss"], target / "loss.png")
        run.publish(target, "report")


def curve(events: EventLog) -> dict[str, dict[int, float]]:
    """`{"loss": {step: value}, "eval_loss": {…}}`; of a step repeated after a restart the last value counts."""
    lines: dict[str, dict[int, float]] = {"loss": {}, "eval_loss": {}}
    for event in events.read():
        if event.kind == "metrics":
            for name, points in lines.items():
                if name in event.fields["values"]:
                    points[int(event.fields["step"])] = event.fields["values"][name]
    return lines


def plot_curve(lines: dict[str, dict[int, float]], base_loss: float, file: Path) -> None:
    """Draw training and held-out loss over steps, with the base model's held-out loss as a level line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="optimiser step", ylabel="loss (nats per token)")
    labels = {"loss": "training", "eval_loss": "held-out"}
    for name, points in lines.items():
        steps = sorted(points)
        axes.plot(steps, [points[s] for s in steps], label=labels[name], marker="o" if name == "eval_loss" else None)
    axes.axhline(base_loss, linestyle="--", color="grey", label="held-out, base model")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], max_new_tokens: int
) -> list[str]:
    given = [prompt.input_ids for prompt in prompts]
    return [a.text for a in answer(model, tokenizer, given, max_new_tokens, batch_size=len(given))]


def _markdown(run_id: str, result: dict[str, Any], comparison: Comparison) -> str:
    base, trained = comparison.base, comparison.trained
    seconds = "".join(f"| {name} | {value:.1f} |\n" for name, value in result["phase_seconds"].items())
    answers = "".join(
        f"\n### {number}. {_one_line(a.prompt)}\n\n| | |\n|---|---|\n| reference | {_one_line(a.reference)} |\n"
        f"| base | {_one_line(a.base)} |\n| fine-tuned | {_one_line(a.trained)} |\n"
        for number, a in enumerate(comparison.answers, 1)
    )
    return f"""# {run_id}

| held-out, {trained.tokens:,} tokens | base | fine-tuned |
|---|---|---|
| loss (nats per token) | {base.loss:.4f} | {trained.loss:.4f} |
| perplexity | {base.perplexity:,.2f} | {trained.perplexity:,.2f} |

Perplexity is {result["perplexity_reduction"]:.1%} lower than the base model's.

![loss curve](loss.png)

| training | |
|---|---|
| optimiser steps (best checkpoint) | {result["steps"]} ({result["best_step"]}) |
| backend | {result["backend"]} |
| tokens per second, padding not counted | {result["tokens_per_second"]:,.0f} |
| peak memory | {result["peak_memory_bytes"] / 2**30:.2f} GiB |

| phase | seconds |
|---|---|
{seconds}
## Answers side by side
{answers}"""


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
