"""The sections `gate`, `ab`, `release` and `notify` of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from jobs.section import Section


class QualityBar(Section):
    """How much worse than the champion the candidate may be on one benchmark, and how sure that must be."""

    metric: str | None = None
    """Metric of the benchmark, as `report.json` of an evaluation names it; none means the one that decides it."""
    margin: float = Field(ge=0)
    """Largest loss that is accepted, in units of the metric."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence, one-sided, with which the loss must be below the margin to pass, or above it to fail."""
    min_items: int = Field(20, ge=2)
    """Fewer items than this on either side prove nothing."""


class GateSettings(Section):
    """What a candidate must show before it is registered. A bar that is null is not asked for."""

    quality: dict[str, QualityBar] = Field(
        {
            "held-out": QualityBar(margin=0.05),
            "choices": QualityBar(margin=0.15),
            "prompts": QualityBar(margin=0.10),
        },
        min_length=1,
    )
    """By benchmark; each must be among `evaluate.benchmarks`."""
    max_latency_ratio: float | None = Field(1.5, gt=0)
    """Candidate's median time of one answer, alone on the device, by the champion's."""
    max_latency_s: float | None = Field(None, gt=0)
    """The same time, in seconds."""
    min_throughput_ratio: float | None = Field(0.67, gt=0)
    """Candidate's tokens per second in full batches, by the champion's."""
    min_tokens_per_second: float | None = Field(None, gt=0)
    """The same, by itself."""
    price_per_hour: float | None = Field(None, gt=0)
    """What an hour of the one device under the load costs, in the currency of `max_cost_per_million`. Not one of
    `cost.usd_per_hour`: those are for whole machines, which may hold several."""
    max_cost_per_million: float | None = Field(None, gt=0)
    """Most that a million generated tokens may cost at that throughput; needs `price_per_hour`."""
    max_unsafe: float | None = Field(0.1, ge=0, lt=1)
    """Share of the generated answers that may hold personal data or tokens of the chat template."""
    min_answers: int = Field(20, ge=1)
    """Fewer generated answers than this prove nothing about safety."""
    load_rounds: int = Field(5, ge=3, le=1000)
    """Rounds of the fixed load, candidate and champion in turn; medians count."""
    load_tokens: int = Field(24, ge=2, le=8192)
    """Tokens that every answer of the load has."""
    load_batch: int = Field(8, ge=1, le=1024)
    """Answers at once in the throughput part of the load."""

    @model_validator(mode="after")
    def _consistent(self) -> GateSettings:
        if self.max_cost_per_million is not None and self.price_per_hour is None:
            raise ValueError("gate.max_cost_per_million needs gate.price_per_hour")
        price, speed, most = self.price_per_hour, self.min_tokens_per_second, self.max_cost_per_million
        if price is not None and speed is not None and most is not None and cost_per_million(price, speed) > most:
            raise ValueError(
                f"gate: the bars contradict each other: at the allowed {speed:g} tokens per second a million tokens "
                f"cost {cost_per_million(price, speed):.4g}, above the allowed {most:g}; raise min_tokens_per_second "
                f"to {price / 3600 / most * 1e6:.4g} or raise max_cost_per_million"
            )
        return self


def cost_per_million(price_per_hour: float, tokens_per_second: float) -> float:
    """Price of a million tokens."""
    return price_per_hour / 3600 / tokens_per_second * 1e6


Share = Annotated[float, Field(gt=0, le=1)]


class AbSettings(Section):
    """The test beside the champion, with real requests. How it decides: `jobs/release/ab.py`."""

    steps: tuple[Share, ...] = Field((0.1, 0.5), min_length=1)
    """Shares of the traffic that the challenger gets, one after the other."""
    step_pairs: int = Field(30, ge=1)
    """Pairs of observations before the next share."""
    min_pairs: int = Field(100, ge=2)
    """Pairs before a promotion, however good it looks. A roll-back waits for nothing."""
    max_pairs: int = Field(2_000, ge=2)
    """Pairs after which a test without an answer ends in hold."""
    max_duration_s: float = Field(3600.0, gt=0)
    """Time after which it does."""
    interval_s: float = Field(10.0, gt=0, le=3600)
    """Time between two looks."""
    false_positive_rate: float = Field(0.05, gt=0, lt=0.5)
    """Chance that a challenger as good as the champion is ever called worse, over all metrics and looks together."""
    error_margin: float | None = Field(0.03, gt=0, lt=1)
    """Difference of the error rates that is tolerated; null leaves this metric out, here and below."""
    latency_margin: float | None = Field(0.1, gt=0, lt=1)
    """Difference of the mean latencies, in units of four times the champion's median: 0.1 is 40 % of the median."""
    feedback_margin: float | None = Field(0.1, gt=0, lt=1)
    """Difference of the mean feedback scores, which go from 0 to 1."""
    preference_margin: float | None = Field(0.15, gt=0, lt=1)
    """The same, of scores divided by length where an answer is longer than the champion's median one."""
    simulated_users: int = Field(8, ge=1, le=256)
    """On this machine, where there is no real traffic: users with one request in flight each. They ask the held-out
    prompts and rate an answer by its likeness to what was really answered."""
    answer_tokens: int = Field(24, ge=1, le=8192)
    """Length limit of the answers that they get, in tokens."""
    baseline_requests: int = Field(20, ge=5)
    """Answers of the champion alone, at the start, from which its medians are taken."""

    @model_validator(mode="after")
    def _consistent(self) -> AbSettings:
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"ab.steps {list(self.steps)} must rise from one to the next")
        if self.steps[-1] >= 1:
            raise ValueError("ab.steps: with the whole traffic on the challenger there is nothing to compare with")
        if self.min_pairs > self.max_pairs:
            raise ValueError(f"ab.min_pairs {self.min_pairs} is above ab.max_pairs {self.max_pairs}")
        if not self.margins():
            raise ValueError("ab: every margin is null, so there is nothing to test")
        return self

    def margins(self) -> dict[str, float]:
        """Tolerated difference by metric."""
        given = {
            "errors": self.error_margin,
            "latency": self.latency_margin,
            "feedback": self.feedback_margin,
            "preference": self.preference_margin,
        }
        return {name: margin for name, margin in given.items() if margin is not None}


class ReleaseSettings(Section):
    """Which parts of the road `make pipeline` takes."""

    tune: bool = True
    """Search for the best settings first; otherwise train with those that are given."""
    ab: bool = True
    """Put the challenger to the test of an A/B before it is promoted; otherwise the gate's pass promotes."""


class NotifySettings(Section):
    """Who is told of hold, failure, promotion and roll-back. An address is a secret, so a file holds it."""

    webhook: Path | None = None
    """File with the address of a webhook of your own, which gets JSON."""
    slack: Path | None = None
    """File with the address of a Slack incoming webhook."""
    timeout_s: float = Field(5.0, gt=0, le=60)
    """Longest wait for either to answer."""
