"""The section `serving` of the settings: engine, its limits, and how Ray Serve scales it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from jobs.section import InputAddress, Section

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=128)]
"""What requests call a model by; the gateway takes the same."""


class AutoscalingSettings(Section):
    """Replicas follow the requests under way."""

    min_replicas: int = Field(1, ge=0, le=1000)
    """Fewest; 0 lets the first request after a pause wait for a start."""
    max_replicas: int = Field(1, ge=1, le=1000)
    """Most. On one machine replicas share the same cores, so that a second one adds nothing."""
    target_ongoing_requests: float = Field(8.0, gt=0, le=10_000)
    """Requests under way per replica that Serve aims at."""
    upscale_delay_s: float = Field(2.0, ge=0, le=3600)
    """How long the load must ask for more before replicas are added. Serve's own 30 s let a burst pass by."""
    downscale_delay_s: float = Field(10.0, ge=0, le=86_400)
    """How long it must ask for less before replicas go. A replica whose model takes minutes to load wants more."""
    look_back_s: float = Field(3.0, gt=1, le=3600)
    """Load is averaged over this time; replicas report it every second."""

    @model_validator(mode="after")
    def _consistent(self) -> AutoscalingSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError("autoscaling.min_replicas is over autoscaling.max_replicas")
        return self


class VllmSettings(Section):
    """What only the engine `vllm` knows."""

    gpus: int = Field(1, ge=1, le=64)
    """GPUs that one replica's weights are spread over (tensor parallelism)."""
    gpu_memory: float = Field(0.9, gt=0, le=1)
    """Share of each GPU's memory for weights and cache."""
    most_adapters: int = Field(8, ge=1, le=1024)
    """Adapters on the GPU at a time; others are swapped in when asked for."""
    largest_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 64
    """Largest rank of an adapter; memory is set aside for it."""


class ServingSettings(Section):
    """What answers, and how much of it."""

    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """`auto` is `vllm` where CUDA and the package are there, else `transformers`."""
    name: ModelName | None = None
    """What requests call the base model; none: the last part of its address."""
    adapters: dict[ModelName, InputAddress] = Field(default_factory=dict)
    """Adapters over the base, by the name that requests call them: a run id, a folder, `s3://…` or
    `models:/<name>@<alias>`."""
    context_tokens: int = Field(2048, ge=16, le=1_048_576)
    """Longest prompt and answer together, in tokens; never more than the model was made for."""
    most_rows: int = Field(16, ge=1, le=1024)
    """Answers that share a forward pass; `n` answers to one prompt count n times."""
    prefill_tokens: int = Field(256, ge=16, le=65_536)
    """Tokens of prompts, of one or of several short ones, that are computed before running answers get their next
    token."""
    max_ongoing_requests: int = Field(16, ge=1, le=10_000)
    """Requests that one replica works on."""
    max_queued_requests: int = Field(32, ge=0, le=100_000)
    """Requests that wait for a replica; one more is answered 503 with Retry-After."""
    cpus_per_replica: float = Field(1.0, gt=0, le=1024)
    """CPU cores that Ray reserves for a replica; the engine `transformers` computes on as many."""
    gpus_per_replica: float = Field(0.0, ge=0, le=16)
    """GPUs that Ray reserves for a replica of the engine `transformers`."""
    drain_s: float = Field(60.0, ge=1, le=3600)
    """Time that a replica which has to go gets for the answers under way."""
    port: int = Field(8000, ge=1024, le=65_535)
    """Port of the gateway on this machine."""
    autoscaling: AutoscalingSettings = AutoscalingSettings()
    """How many replicas."""
    vllm: VllmSettings = VllmSettings()
    """GPU engine."""
