"""The gateway's file: which public model goes to which backends, and every limit. Read again whenever it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from jobs.section import Address, Section
from jobs.serving.protocol import MAX_CHOICES
from jobs.settings import load_tree

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=128)]
"""Name of a backend, a public model or a variant: it becomes a label of metrics and a header."""


def _http(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return address.rstrip("/")


Url = Annotated[Address, AfterValidator(_http)]


class Backend(Section):
    """Engines that answer for one model, behind one or more addresses that can stand in for each other."""

    urls: tuple[Url, ...] = Field(min_length=1)
    """Addresses up to the `/v1`, which is not part of them: `http://127.0.0.1:8100`."""
    model: str = Field(min_length=1)
    """The name that the engine knows the model by."""
    health_path: Annotated[str, StringConstraints(pattern=r"^/")] = "/-/healthz"
    """What is asked to see whether an address is alive. Any answer in time is a yes: an engine that is too busy says so
    with a status, and must not be taken for dead. Ray Serve's proxy answers the default ahead of its queues."""
    max_concurrent: int = Field(64, ge=1, le=100_000)
    """Requests in work at a time, on all addresses together, by this replica of the gateway."""
    max_queued: int = Field(128, ge=0, le=100_000)
    """Requests that wait for a place; one more is answered 429."""


class Variant(Section):
    """One side of an A/B test: a backend and its share of the users."""

    name: Name
    """What answers, metrics and feedback call it: `champion`, `challenger`."""
    backend: str
    weight: float = Field(1.0, ge=0, le=1_000_000)
    """Share of the users, relative to the other weights. 0: only asked for by its name, or when all others are down."""


class Shadow(Section):
    """A backend that gets copies of requests; its answers are measured and thrown away."""

    backend: str
    fraction: float = Field(ge=0, le=1)
    """Share of the requests that are copied."""
    max_concurrent: int = Field(16, ge=1, le=10_000)
    """Copies in work at a time; further ones are left out and counted."""


class Model(Section):
    """What a public model name stands for."""

    variants: tuple[Variant, ...]
    shadow: Shadow | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variants need names of their own, found {', '.join(names)}")
        if not any(variant.weight for variant in self.variants):
            raise ValueError("one variant at least needs a weight over 0")
        return self


class Limits(Section):
    """The largest request that is taken."""

    body_bytes: int = Field(1_048_576, ge=1024, le=64 * 1_048_576)
    """Longest body; a longer one is answered 413."""
    prompt_chars: int = Field(65_536, ge=1)
    """Characters of all messages together. The engine knows the context in tokens and refuses what does not fit."""
    output_tokens: int = Field(4096, ge=1)
    """Largest `max_tokens`."""
    choices: int = Field(8, ge=1, le=MAX_CHOICES)
    """Largest `n`."""


class Timeouts(Section):
    """How long each step may take, in seconds."""

    request_s: float = Field(10.0, gt=0, le=600)
    """A client's header, and then its body, from the first byte to the last."""
    queue_s: float = Field(10.0, gt=0, le=600)
    """Waiting for a place at a backend; then 429."""
    connect_s: float = Field(1.0, gt=0, le=60)
    """Opening a connection to a backend."""
    first_byte_s: float = Field(30.0, gt=0, le=3600)
    """From a streaming request to its first token; then another address is tried."""
    answer_s: float = Field(120.0, gt=0, le=3600)
    """From a request without streaming to its whole answer; then another address is tried."""
    idle_s: float = Field(30.0, gt=0, le=3600)
    """Between two pieces of a stream."""
    whole_s: float = Field(600.0, gt=0, le=86_400)
    """A request with all its retries."""
    write_s: float = Field(20.0, gt=0, le=3600)
    """A client that does not read what it asked for is cut off after this."""


class Retries(Section):
    """What happens when an address fails before anything was sent to the client."""

    attempts: int = Field(3, ge=1, le=20)
    """Tries that reach an engine of the request's variant; then each other variant gets one, unless the client named
    its own."""
    backoff_s: float = Field(0.05, gt=0, le=10)
    """Wait before an address is tried for a second time by one request; doubles each time."""
    eject_s: float = Field(1.0, gt=0, le=60)
    """How long an address that failed is passed over, doubling with each failure in a row up to 30 s."""
    probe_s: float = Field(2.0, gt=0, le=300)
    """Time between two questions for health to each address, and the time that the answer may take. When five in a
    row are not answered, what waits for the address is tried on another one at once."""


class Feedback(Section):
    """Where thumbs, scores and comments go."""

    address: Address = "feedback"
    """A folder, relative to this file, or `s3://bucket/prefix`. Each feedback is a small file of its own there, so that
    replicas never write to the same one; the newest of a request id counts."""


class Drain(Section):
    """How a replica leaves on SIGTERM, in seconds."""

    announce_s: float = Field(0.0, ge=0, le=300)
    """Time in which it still takes requests while /readyz says no: what a load balancer needs to notice."""
    finish_s: float = Field(30.0, ge=0, le=3600)
    """Time for answers in work; then streams end with an error event."""


class Config(Section):
    """The whole file."""

    backends: dict[Name, Backend] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)
    """By public name: what clients write into `model`."""
    keys_file: Path | None = None
    """Hashes of the API keys (see keys.py), relative to this file. None: no key is asked for."""
    secret_file: Path | None = None
    """Random text that signs request ids, the same for all replicas, relative to this file. None: the environment's
    HAETSAL_GATEWAY_SECRET, and without that a secret of this process alone."""
    replicas: int = Field(1, ge=1, le=1000)
    """Replicas of the gateway that share the traffic: each grants its share of the limits of a key."""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    feedback: Feedback | None = None
    """None: feedback is refused."""
    drain: Drain = Drain()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for model, entry in self.models.items():
            wanted = [(f"variants.{v.name}", v.backend) for v in entry.variants]
            wanted += [("shadow", entry.shadow.backend)] if entry.shadow else []
            for where, backend in wanted:
                if backend not in self.backends:
                    known = ", ".join(self.backends)
                    raise ValueError(f"models.{model}.{where}: no backend {backend!r}; there are: {known}")
        return self


def load(path: Path) -> Config:
    """The file, with the paths in it made absolute. Raises UsageError naming file, key and remedy."""
    config = load_tree(Config, path)
    files: dict[str, object] = {
        key: path.parent / value for key in ("keys_file", "secret_file") if (value := getattr(config, key))
    }
    if config.feedback:
        address = config.feedback.address
        files["feedback"] = Feedback(address=address if "://" in address else str(path.parent / address))
    return config.model_copy(update=files)
