"""How a pipeline ended, told from what its steps left. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.release.ab import Outcome
from jobs.release.gate import Verdict
from jobs.release.machine import Outputs

Kind = Literal["promoted", "unchanged", "rejected", "rolled back"]


@dataclass(frozen=True)
class Ending:
    """The result in a word and in a sentence, and the version that serves now."""

    kind: Kind
    sentence: str
    champion: str | None


def ending(done: Outputs) -> Ending:
    """Of a pipeline whose steps are all done."""
    champion = done["champion"]["version"]
    still = f"version {champion} goes on serving" if champion else "nothing serves yet"
    if "promote" in done:
        version = done["promote"]["to"]
        return Ending("promoted", f"version {version} is the champion: {done['promote']['reason']}", version)
    if "gate" not in done:
        return Ending("unchanged", f"the candidate is the champion already, version {champion}", champion)
    if done["gate"]["verdict"] != Verdict.PASS:
        failed = "; ".join(f"{c['name']}: {c['reason']}" for c in done["gate"]["checks"] if c["verdict"] == "fail")
        return Ending("rejected", f"the candidate did not pass the gate ({failed}); {still}", champion)
    assert done["ab"]["outcome"] == Outcome.ROLL_BACK
    return Ending("rolled back", f"the challenger lost the A/B test ({done['ab']['reason']}); {still}", champion)
