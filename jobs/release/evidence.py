"""What the gate looks at: the evaluation's records, answers, a fixed load on both models, the merged model."""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs import export
from jobs.errors import IntegrityError
from jobs.evaluation import candidate, registry
from jobs.evaluation.benchmark import Benchmark, Item, Loaded
from jobs.evaluation.prompts import Prompts
from jobs.evaluation.session import ITEMS
from jobs.evaluation.summary import AGAINST, SUBJECT
from jobs.release import safety
from jobs.release.gate import Evidence, Measured, Merge, Safety, Speed
from jobs.release.settings import GateSettings
from jobs.runs import Run
from jobs.settings import Settings, from_yaml
from jobs.storage import NotFound, Storage

_WARM_UP = 1
"""Rounds of the load that do not count."""


def measure(settings: Settings, evaluation: Run) -> dict[str, Any]:
    """Load candidate and champion in turn, and look at answers and merged weights; JSON that `assemble` reads back."""
    tree = from_yaml(evaluation.config(), evaluation.address("config.yaml"))
    storage, gate = Storage(settings.storage.root), settings.gate
    prompts = Prompts(tree.evaluate)
    with candidate.find(storage, tree.evaluate.subject, tree) as subject:
        loaded = subject.load()
        ours = speed(loaded, prompts, gate)
        answers = _answers(evaluation)
        found = safety.inspect(answers, _special_tokens(loaded)) if answers else None
        merge = _merged(loaded)
        del loaded
        gc.collect()  # two models at once may not fit
        theirs = None
        if tree.evaluate.against is not None:
            with candidate.find(storage, tree.evaluate.against, tree) as against:
                theirs = speed(against.load(), prompts, gate)
        elif subject.base is not None:
            theirs = speed(subject.base.load(), prompts, gate)
    parts = {"candidate": ours, "champion": theirs, "safety": found, "merge": merge}
    return {name: None if part is None else asdict(part) for name, part in parts.items()}


def assemble(settings: Settings, evaluation: Run, measured: Mapping[str, Any]) -> Evidence:
    """The evidence from what `measure` found and what the evaluation left. What is not there is None."""
    tree = from_yaml(evaluation.config(), evaluation.address("config.yaml"))
    benchmarks = {benchmark.name: benchmark for benchmark in registry.prepare(tree.evaluate, tree.data)}
    quality = {
        name: _measured(evaluation, benchmarks.get(name), bar.metric) for name, bar in settings.gate.quality.items()
    }

    def part(name: str, kind: Any) -> Any:
        return kind(**measured[name]) if measured.get(name) else None

    return Evidence(
        quality, part("candidate", Speed), part("champion", Speed), part("safety", Safety), part("merge", Merge)
    )


def speed(loaded: Loaded, prompts: Prompts, gate: GateSettings) -> Speed:
    """The fixed load: the first prompts, each answered with exactly `gate.load_tokens` tokens, alone and in batches."""
    ids = prompts.encoded(loaded.tokenizer)
    batch = [ids[index % len(ids)] for index in range(gate.load_batch)]
    alone, together = [], []
    for _ in range(_WARM_UP + gate.load_rounds):
        alone.append(_seconds(loaded, ids[:1], gate.load_tokens))
        together.append(_seconds(loaded, batch, gate.load_tokens))
    tokens = gate.load_batch * gate.load_tokens
    return Speed(statistics.median(alone[_WARM_UP:]), tokens / statistics.median(together[_WARM_UP:]))


def _seconds(loaded: Loaded, prompts: Sequence[Sequence[int]], tokens: int) -> float:
    from jobs.training.scoring import scoring

    tokenizer = loaded.tokenizer
    encoded = tokenizer.pad([{"input_ids": list(p)} for p in prompts], padding_side="left", return_tensors="pt")
    with scoring(loaded.model) as device:
        given = encoded.to(device)
        started = time.perf_counter()
        written = loaded.model.generate(
            **given,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        written.tolist()  # waits for the device
        return time.perf_counter() - started


def _merged(loaded: Loaded) -> Merge:
    """Merge, write, read back and compare, as `make export` does; nothing of it is kept."""
    with tempfile.TemporaryDirectory(prefix="haetsal-") as scratch:
        try:
            divergence = export.export(loaded.model, loaded.tokenizer, Path(scratch) / "merged")
        except IntegrityError as error:
            return Merge(False, str(error))
    return Merge(True, f"largest divergence {divergence:.1e} nats")


def _special_tokens(loaded: Loaded) -> list[str]:
    return [str(token) for token in loaded.tokenizer.all_special_tokens if str(token).strip()]


def _answers(evaluation: Run) -> list[tuple[str, str]]:
    items = _items(evaluation, Prompts.name, SUBJECT)
    return [(item.detail["prompt"], item.detail["answer"]) for item in items or []]


def _measured(evaluation: Run, benchmark: Benchmark | None, metric: str | None) -> Measured | None:
    if benchmark is None:
        return None
    chosen = [m for m in benchmark.metrics if metric in (None, m.name)]
    ours, theirs = (_items(evaluation, benchmark.name, side) for side in (SUBJECT, AGAINST))
    if not chosen or ours is None or theirs is None:
        return None
    return Measured(chosen[0], ours, theirs)


def _items(evaluation: Run, benchmark: str, side: str) -> list[Item] | None:
    try:
        data = evaluation.storage.read(evaluation.path(ITEMS, f"{benchmark}-{side}.jsonl"))
        return [Item.from_json(line) for line in data.decode().split("\n") if line]
    except NotFound:
        return None
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{evaluation.address(ITEMS)}: {benchmark}-{side}.jsonl is damaged ({error})") from None
