"""Who gets which variant of an A/B test: weighted rendezvous hashing, without any state.

Each variant draws a number for each user, -ln(u) / weight with u a hash of user and variant that is even in (0, 1); the
smallest wins. That is the first arrival of exponential clocks, so a variant wins with its share of the weights, and a
user's draws at all other variants stay as they are when one weight changes: only users that the changed variant wins
or loses are moved (Schindelhauer & Schomaker 2005, "Weighted distributed hash tables").
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from jobs.serving.gateway.config import Variant


def ranked(variants: Sequence[Variant], who: str) -> list[Variant]:
    """`variants` in the order in which `who` gets them: the first answers, the others stand in for it."""
    if len(variants) == 1:
        return list(variants)
    return sorted(variants, key=lambda variant: _arrival(variant, who))


def _arrival(variant: Variant, who: str) -> float:
    if not variant.weight:
        return math.inf
    digest = hashlib.blake2b(f"{variant.name}\0{who}".encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 0.5) / 2**64) / variant.weight
