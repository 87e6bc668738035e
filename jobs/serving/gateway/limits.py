"""How much a key may ask in a minute: token buckets for requests and for tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from jobs.serving.gateway.keys import Key
from jobs.serving.protocol import ApiError

Clock = Callable[[], float]


class Bucket:
    """Holds what one minute grants, refilled evenly. `clock` tells seconds."""

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._most = per_minute
        self._clock = clock
        self._level, self._at_s = per_minute, clock()

    def take(self, amount: float) -> float:
        """Take `amount` (never more than all there can be). Returns 0, or the seconds until it could be taken."""
        now_s = self._clock()
        self._level = min(self._most, self._level + (now_s - self._at_s) * self._most / 60)
        self._at_s = now_s
        missing = min(amount, self._most) - self._level
        if missing > 0:
            return missing * 60 / self._most
        self._level -= amount
        return 0.0

    def put_back(self, amount: float) -> None:
        """Give back what was taken too much; a negative amount takes, below zero if it must."""
        self._level = min(self._most, self._level + amount)


@dataclass
class Reserved:
    """Tokens taken ahead of an answer."""

    tokens: int
    _bucket: Bucket | None

    def settle(self, tokens: int) -> None:
        """The answer is over and cost `tokens`."""
        if self._bucket:
            self._bucket.put_back(self.tokens - tokens)


class KeyLimits:
    """The limits of one key, as far as one of `replicas` replicas grants them."""

    def __init__(self, key: Key, replicas: int, clock: Clock = time.monotonic) -> None:
        self.granted = (key.requests_per_minute, key.tokens_per_minute, replicas)
        requests, tokens, _ = self.granted
        self._requests = Bucket(max(1.0, requests / replicas), clock) if requests else None
        self._tokens = Bucket(max(1.0, tokens / replicas), clock) if tokens else None

    def request(self) -> None:
        """One request. Raises ApiError 429 with the time to wait."""
        if self._requests and (wait_s := self._requests.take(1)):
            raise _refusal("requests", wait_s)

    def reserve(self, tokens: int) -> Reserved:
        """Take the tokens that a request may cost before it is sent, so that many at once cannot overrun the limit.

        Raises ApiError 429 with the time to wait. `Reserved.settle` gives back what was not used.
        """
        if self._tokens and (wait_s := self._tokens.take(tokens)):
            raise _refusal("tokens", wait_s)
        return Reserved(tokens, self._tokens)


def _refusal(what: str, wait_s: float) -> ApiError:
    return ApiError(
        429,
        f"This key has used up its {what} per minute.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_s=math.ceil(wait_s),
    )
