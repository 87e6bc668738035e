"""What the pipeline wants of whatever serves: two variants behind one gateway, and what their answers were like."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from jobs.release.ab import Observation
from jobs.runs import Run


class Trial(Protocol):
    """Champion and challenger while they are compared. Leaving the context leaves no challenger behind."""

    def share(self, challenger: float) -> None:
        """Give the challenger this share of the traffic, from 0 to 1, from the next request on."""

    def observed(self) -> Sequence[Observation]:
        """What has been answered, or has failed, since the last call; in order of time."""


class Serving(Protocol):
    """Puts models up beside each other."""

    def trial(self, champion: Run, challenger: Run) -> AbstractContextManager[Trial]:
        """Both up and ready, all traffic on the champion."""
