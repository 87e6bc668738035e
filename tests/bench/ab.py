"""False alarms of the A/B test, and how many pairs of answers it needs: python -m tests.bench.ab

2,000 whole tests of equal variants, each with all metrics and a look every twenty pairs; then 200 of each kind of bad
challenger. The variants are drawn, the rule is the one that `make pipeline` goes by.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np

from jobs.release.ab import Baseline, Observation, Outcome, look
from jobs.release.settings import AbSettings

EQUAL_TESTS, BAD_TESTS, PAIRS, EVERY = 2_000, 200, 400, 20


@dataclass(frozen=True)
class Challenger:
    """How it differs from a champion that errs in 1 % and is liked by 70 %."""

    errors: float = 0.01
    slower: float = 1.0
    liked: float = 0.7


def observed(challenger: Challenger, rng: np.random.Generator) -> list[Observation]:
    """Requests in turn to champion and challenger."""
    found = []
    for at in range(2 * PAIRS):
        ours = at % 2 == 1
        side = challenger if ours else Challenger()
        if rng.random() < side.errors:
            found.append(Observation(float(at), ours, failed=True))
            continue
        latency_s = float(np.exp(rng.normal(0, 0.5))) * side.slower
        score = float(rng.random() < side.liked)
        found.append(Observation(float(at), ours, False, latency_s, int(rng.integers(10, 40)), score))
    return found


def ends(challenger: Challenger, settings: AbSettings, rng: np.random.Generator) -> tuple[Outcome, int]:
    """Outcome of one test, and pairs until then."""
    seen = observed(challenger, rng)
    for end in range(2 * EVERY, len(seen) + 1, 2 * EVERY):
        found = look(seen[:end], Baseline(1.0, 25.0), settings, is_last=end == len(seen))
        if found.outcome is not Outcome.CONTINUE:
            break
    return found.outcome, found.pairs


def main() -> None:
    """Print the table."""
    settings = AbSettings()
    rng = np.random.default_rng(20261123)
    equal = [ends(Challenger(), settings, rng) for _ in range(EQUAL_TESTS)]
    for outcome in (Outcome.ROLL_BACK, Outcome.PROMOTE, Outcome.HOLD):
        print(f"{EQUAL_TESTS:,} equal challengers: {outcome} {np.mean([o is outcome for o, _ in equal]):.2%}")
    print(f"configured false-positive rate: {settings.false_positive_rate:.0%}")
    for name, bad in {
        "2 × latency": Challenger(slower=2.0),
        "5 % errors": Challenger(errors=0.05),
        "liked by 35 %": Challenger(liked=0.35),
    }.items():
        found = [ends(bad, settings, rng) for _ in range(BAD_TESTS)]
        caught = [pairs for outcome, pairs in found if outcome is Outcome.ROLL_BACK]
        promoted = np.mean([outcome is Outcome.PROMOTE for outcome, _ in found])
        after = f"after {median(caught):.0f} pairs (9 of 10 within {quantiles(caught, n=10)[-1]:.0f})" if caught else ""
        print(
            f"{name}: rolled back {len(caught) / BAD_TESTS:.0%} within {PAIRS} pairs, {after}; promoted {promoted:.1%}"
        )


if __name__ == "__main__":
    main()
