"""KoBEST, KMMLU and HAE-RAE through lm-evaluation-harness, zero-shot: its prompts and scoring make figures comparable.

The data are not ours to ship. They are read from `evaluate.harness_data`, or from the hub and its cache; all of them
before a model is loaded, so that what is missing shows at once. Of the harness's metrics `acc` and `acc_norm` are
taken, per item, and get the intervals and the paired test that every benchmark here has. KoBEST's F1 is not: its code
would come from the hub.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.errors import EnvironmentNotReady, UsageError
from jobs.evaluation.benchmark import Item, Loaded, Metric, Progress, checked
from jobs.evaluation.kmmlu_cot import harness_folder
from jobs.evaluation.settings import EvaluateSettings

_REACH_TIMEOUT_S = 5.0
"""Longest wait for the hub's first answer. Its client would try for two minutes."""
_TASK_NAME = re.compile(r"^task: (\w+)$", re.MULTILINE)
_METRICS = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]


@dataclass(frozen=True)
class Suite:
    """Where the harness keeps the tasks of a benchmark, and the data set that they read."""

    tasks: str
    dataset: str

    @property
    def folder(self) -> str:
        """Name of the data set's folder in `evaluate.harness_data`."""
        return self.dataset.rpartition("/")[2]


SUITES = {
    "kobest": Suite("kobest", "skt/kobest_v1"),
    "kmmlu": Suite("kmmlu/default", "HAERAE-HUB/KMMLU"),
    "haerae": Suite("haerae", "HAERAE-HUB/HAE_RAE_BENCH"),
}


class Harness:
    """See `jobs.evaluation.benchmark.Benchmark`. Making one loads the data of all its tasks.

    Raises EnvironmentNotReady if the harness or the data are not there, UsageError for data that do not fit.
    """

    metrics = (
        Metric("acc", "right answers, by likelihood", "right", binary=True),
        Metric("acc_norm", "right answers, by likelihood per character", "right_norm", binary=True),
    )

    def __init__(self, name: str, settings: EvaluateSettings) -> None:
        self.name = name
        self._settings = settings
        suite = SUITES[name]
        configurations = harness_folder() / suite.tasks
        local = _local(suite, settings)
        if local is None:
            _reach(name, suite)
        self._tasks = _load(name, configurations, local)
        self._docs = {task: list(loaded.eval_docs) for task, loaded in self._tasks.items()}
        texts = json.dumps(self._docs, ensure_ascii=False, sort_keys=True, default=str)
        self.inputs = {
            str(local or suite.dataset): hashlib.sha256(texts.encode()).hexdigest(),
            f"lm_eval/tasks/{suite.tasks}": _digest(configurations),
        }
        first = next(iter(self._tasks))
        self.preview = str(self._tasks[first].doc_to_text(self._docs[first][0]))

    def __len__(self) -> int:
        return sum(len(taken) for taken in self._taken().values())

    def run(self, loaded: Loaded, progress: Progress) -> list[Item]:
        """Score one model."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        taken = self._taken()
        with _quiet():
            model = HFLM(
                pretrained=loaded.model,
                tokenizer=loaded.tokenizer,
                batch_size=self._settings.batch_size,
                max_length=min(
                    self._settings.max_length, loaded.model.config.get_text_config().max_position_embeddings
                ),
            )
        items: list[Item] = []
        for name, task in self._tasks.items():
            with _quiet():
                # Not simple_evaluate, which spends seconds a call on a description of the machine.
                outcome: Any = lm_eval.evaluate(
                    lm=model,
                    task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
                    samples={name: taken[name]},
                    bootstrap_iters=0,
                )
            items += [checked(loaded, _item(name, sample)) for sample in outcome["samples"][name]]
            progress(len(items), len(self))
        return items

    def _taken(self) -> dict[str, list[int]]:
        """Indices of the items to score, by task; a limit is spread over the tasks."""
        total = sum(map(len, self._docs.values()))
        limit = self._settings.max_rows
        share = 1.0 if limit is None else min(1.0, limit / total)
        counts = {task: max(1, round(len(docs) * share)) for task, docs in self._docs.items()}
        return {
            task: [index * len(docs) // counts[task] for index in range(counts[task])]
            for task, docs in self._docs.items()
        }


def _item(task: str, sample: dict[str, Any]) -> Item:
    log_likelihoods = [float(response[0][0]) for response in sample["resps"]]
    return Item(
        f"{task}-{sample['doc_id']}",
        task,
        {
            "right": float(sample["acc"]),
            "right_norm": float(sample["acc_norm"]),
            "likeliest_nats": -max(log_likelihoods),
        },
        {"log_likelihoods": log_likelihoods, "answer": str(sample["target"])},
    )


def _local(suite: Suite, settings: EvaluateSettings) -> Path | None:
    if settings.harness_data is None:
        return None
    folder = Path(settings.harness_data).expanduser() / suite.folder
    if not folder.is_dir():
        raise EnvironmentNotReady(
            f"evaluate.harness_data: {folder} is not there; "
            f"fetch it: hf download --repo-type dataset {suite.dataset} --local-dir {folder}"
        )
    return folder.resolve()


def _reach(name: str, suite: Suite) -> None:
    """Raises EnvironmentNotReady unless the hub answers, within seconds."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        huggingface_hub.HfApi().dataset_info(suite.dataset, timeout=_REACH_TIMEOUT_S)
        return
    except HfHubHTTPError as error:
        reason = f"the hub refuses it ({error.response.status_code})"
    except OfflineModeIsEnabled:
        return  # the user wants what the cache has; to find nothing there takes no time
    except OSError as error:
        reason = f"the hub does not answer ({type(error).__name__})"
    except Exception as error:  # the hub's HTTP client has a base class of its own, which depends on its version
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "requests"):
            raise
        reason = f"the hub does not answer ({type(error).__name__})"
    raise EnvironmentNotReady(
        f"evaluate.benchmarks: {name}: no data: {reason}; fetch {suite.dataset} elsewhere with `hf download "
        f"--repo-type dataset {suite.dataset} --local-dir FOLDER/{suite.folder}` and set evaluate.harness_data=FOLDER"
    )


def _load(name: str, configurations: Path, local: Path | None) -> dict[str, Any]:
    """The harness's task objects by name, each with its data. `local` replaces the hub's address."""
    import datasets
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as scratch:
        names = []
        for file in sorted(configurations.glob("*.yaml")):
            if found := _TASK_NAME.search(file.read_text(encoding="utf-8")):
                names.append(found[1])
                overlay = {"include": str(file), "task": found[1], "num_fewshot": 0, "metric_list": _METRICS}
                if local is not None:
                    overlay["dataset_path"] = str(local)
                (Path(scratch) / file.name).write_text(yaml.safe_dump(overlay), encoding="utf-8")
        try:
            with _quiet():
                tasks: dict[str, Any] = TaskManager(include_path=scratch, include_defaults=False).load(names)["tasks"]
        except (OSError, ValueError, KeyError, datasets.exceptions.DatasetGenerationError) as error:
            reason = " ".join(str(error).split())[:300]
            if local is not None:
                raise UsageError(f"evaluate.harness_data: {local}: not the data that {name} needs: {reason}") from None
            raise EnvironmentNotReady(f"evaluate.benchmarks: {name}: its data cannot be had: {reason}") from None
    return tasks


def _digest(configurations: Path) -> str:
    contents = [
        f"{f.name} {hashlib.sha256(f.read_bytes()).hexdigest()}"
        for f in sorted(configurations.iterdir())
        if f.is_file()
    ]
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's reports and bars from the terminal, where they would tear our own."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
