"""The search: what is varied, how much is tried, and what it may cost."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from jobs.section import Section

Value = bool | int | float | str
"""What one setting can be."""


class Dimension(Section):
    """Where one setting is drawn from: a range (`min`, `max`), or a list (`choices`)."""

    min: int | float | None = None
    """Lower end of the range. If both ends are whole numbers, so are the values drawn."""
    max: int | float | None = None
    """Upper end of the range, included."""
    log: bool = False
    """Draw from the range evenly by order of magnitude instead of by size."""
    choices: tuple[Value, ...] | None = Field(None, min_length=2)
    """The values to choose from, each as likely as another before anything is known."""
    times: str | None = None
    """Dotted key of another setting by whose value this one is multiplied: with `choices: [0.5, 1, 2]` and
    `times: lora.rank`, alpha is half, equal to or twice the rank that the same trial has."""

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        if self.choices is not None:
            if self.min is not None or self.max is not None or self.log:
                raise ValueError("give either choices, or min and max (with log: true if wanted), not both")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("choices names a value twice")
        elif self.min is None or self.max is None:
            raise ValueError("give both min and max, or choices")
        elif self.min >= self.max:
            raise ValueError(f"min {self.min} must be below max {self.max}")
        elif self.log and self.min <= 0:
            raise ValueError(f"log needs a min above 0, which {self.min} is not")
        if self.times and any(not _is_number(value) for value in self.choices or ()):
            raise ValueError("times multiplies numbers, but choices holds something else")
        return self


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Space(Section):
    """What is varied, in the shape of the settings tree: section, key, where its value is drawn from.

    `null` takes out a key that a file below this one has put in.
    """

    train: dict[str, Dimension | None] = Field({})
    """Keys of the section `train`."""
    lora: dict[str, Dimension | None] = Field({})
    """Keys of the section `lora`."""
    model: dict[str, Dimension | None] = Field({})
    """Keys of the section `model`: `dtype` and `quantization`."""


class TuneSettings(Section):
    """The search. Sizes are those of ASHA (Li et al. 2020): a rung is a share of a trial's training at which the worse
    of the trials that came that far are stopped."""

    space: Space = Space()
    """What is varied; everything else is as in the rest of the settings."""
    samples: int = Field(20, ge=1, le=10_000)
    """Trials in all."""
    max_concurrent: int = Field(4, ge=1, le=1000)
    """Most trials at once. On one machine they are as many as have room: each takes `scaling.cpus_per_worker` cores and
    `scaling.gpus_per_worker` GPUs, which may be a fraction."""
    random_starts: int = Field(5, ge=1, le=10_000)
    """Trials drawn at random before the sampler (TPE) learns from results."""
    evaluations: int = Field(16, ge=1, le=1000)
    """Evaluations per training, evenly spaced; they take the place of `train.checkpoint_every_steps`."""
    stop_after: int | None = Field(None, ge=1)
    """Evaluations after which a trial ends even if it leads: the most that ASHA gives to one; none means all of them.
    Trials are then the beginnings of the training, under its own learning rate schedule."""
    grace: int = Field(2, ge=1, le=1000)
    """Evaluations before a trial can be stopped: the first rung."""
    reduction: float = Field(2.0, gt=1, le=100)
    """Of the trials that reached a rung, about one in this many goes on; the next rung is this many times farther."""
    time_budget_s: float | None = Field(None, gt=0)
    """Longest time for the whole study, in seconds, resumed parts included; then the best so far counts.
    `cost.run_budget_usd` ends it likewise."""

    @model_validator(mode="after")
    def _consistent(self) -> TuneSettings:
        if self.stop_after is not None and self.stop_after > self.evaluations:
            raise ValueError(f"stop_after {self.stop_after} is beyond the {self.evaluations} evaluations of a training")
        if self.grace > self.longest:
            raise ValueError(f"grace {self.grace} is beyond the end of a trial, which has {self.longest} evaluations")
        return self

    @property
    def longest(self) -> int:
        """Evaluations of a trial that nothing ends early."""
        return self.evaluations if self.stop_after is None else self.stop_after
