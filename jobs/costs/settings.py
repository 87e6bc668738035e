"""The section `cost` of the settings: prices and budgets."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from jobs.section import Section

Price = Annotated[float, Field(gt=0, le=100_000)]


class CostSettings(Section):
    """What machines cost and what may be spent. Without a price there is no cost, in no figure and no budget.

    On AWS the prices and the month's budget come from the environment's file and terraform/prices.yaml by themselves.
    """

    usd_per_hour: dict[str, Price] = Field(default_factory=dict)
    """Price of one machine per hour by what it does: `training`, `preprocessing`, `inference`."""
    head_usd_per_hour: float = Field(0.0, ge=0, le=100_000)
    """Price per hour of what a run needs beside these machines: the head of its Ray cluster."""
    prices_of: date | None = None
    """Day on which the prices were written down."""
    run_budget_usd: float | None = Field(None, gt=0)
    """What a run may cost. At 80 % it warns; at 100 % it ends at its next checkpoint and is not resumed."""
    month_budget_usd: float | None = Field(None, gt=0)
    """What all runs that begin in a month (UTC) may cost together. At 80 % each new one warns, at 100 % none begins."""
