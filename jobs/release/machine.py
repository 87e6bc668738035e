"""Steps as data, and what carries them out.

The log of the run says of each step that it began and that it was done, with the hash of its inputs and its output. A
resumed run takes what is done and does the rest. What has been done in any run is also noted in
`<storage.root>/steps/<step>/<hash of inputs>.json`, so that another run with the same inputs need not do it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import IntegrityError
from jobs.events import EventLog
from jobs.redact import redact_tree
from jobs.spans import Spans
from jobs.storage import NotFound, Storage

if TYPE_CHECKING:
    from opentelemetry.trace import Span

BEGUN, DONE = "step-begun", "step-done"

Output = dict[str, Any]
"""What a step leaves for the ones after it and for the report: JSON."""
Outputs = Mapping[str, Output]
"""By step."""


@dataclass(frozen=True)
class Step:
    """One step. All callables get the outputs of the steps before it."""

    name: str
    title: str
    inputs: Callable[[Outputs], dict[str, Any]]
    """All that its output depends on, as JSON with hashes in the place of contents."""
    effect: Callable[[Outputs], Output]
    """Does it. May be cut off anywhere and begun again, then it ends as if it had not been."""
    check: Callable[[Output], str | None] = lambda output: None
    """What is wrong with what the output names (a model is gone, a deployment is down); None if it holds."""
    not_needed: Callable[[Outputs], str | None] = lambda outputs: None
    """Why there is nothing to do, if so."""
    reusable: bool = True
    """Whether the output may serve other runs. Of what changes the world outside it may not."""
    only_looks: bool = False
    """Whether the effect changes nothing, so that a dry run may have it too."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a step, and why."""

    step: Step
    verb: str
    """`run`, `skip` (done already) or `leave out` (not needed)."""
    reason: str
    output: Output | None = None
    from_run: str | None = None


@dataclass(frozen=True)
class Machine:
    """Carries out steps for one run."""

    storage: Storage
    events: EventLog
    say: Callable[[str], None]
    spans: Spans

    def carry_out(self, steps: Sequence[Step]) -> dict[str, Output]:
        """Do what is left of `steps`, in their order; the outputs of all that were needed.

        Raises what an effect raises; the log then holds all that was done.
        """
        with self.spans.span("pipeline", run=self.events.run.id) as span:
            return self._carry_out(steps, span)

    def _carry_out(self, steps: Sequence[Step], span: Span | None) -> dict[str, Output]:
        outputs: dict[str, Output] = {}
        for step in steps:
            decision = decide(step, outputs, self._in_log(step), self.storage)
            self.say(f"{step.name:<9} {decision.verb}: {decision.reason}")
            if decision.verb == "run":
                with self.spans.span(step.name, span):
                    outputs[step.name] = self._do(step, outputs)
            elif decision.output is not None:
                outputs[step.name] = decision.output
                if decision.from_run is not None:
                    self._note(step, key_of(step, outputs), decision.output, decision.from_run)
        return outputs

    def _do(self, step: Step, outputs: Outputs) -> Output:
        key = key_of(step, outputs)
        self.events.append(BEGUN, name=step.name, key=key)
        self.events.publish()
        output: Output = redact_tree(step.effect(outputs))
        self._note(step, key, output, self.events.run.id)
        if step.reusable:
            remember(self.storage, step, key, output, self.events.run.id)
        return output

    def _note(self, step: Step, key: str, output: Output, by: str) -> None:
        self.events.append(DONE, name=step.name, key=key, output=output, by=by)
        self.events.publish()

    def _in_log(self, step: Step) -> dict[str, Output]:
        """Outputs of this step in this run by the hash of its inputs."""
        return {
            event.fields["key"]: event.fields["output"]
            for event in self.events.read()
            if event.kind == DONE and event.fields["name"] == step.name
        }


def foresee(steps: Sequence[Step], storage: Storage) -> list[Decision]:
    """What a new run would do, as far as can be known; changes nothing. What comes after unknown outputs would run."""
    outputs: dict[str, Output] = {}
    known, found = True, []
    for step in steps:
        decision = decide(step, outputs, {}, storage) if known else Decision(step, "run", step.title)
        found.append(decision)
        if decision.verb == "run":
            known = known and step.only_looks
            outputs[step.name] = step.effect(outputs) if known else {}
        elif decision.output is not None:
            outputs[step.name] = decision.output
    return found


def decide(step: Step, outputs: Outputs, in_log: Mapping[str, Output], storage: Storage) -> Decision:
    """Whether a step is needed, done, or to be done. Changes nothing."""
    if reason := step.not_needed(outputs):
        return Decision(step, "leave out", reason)
    key = key_of(step, outputs)
    if key in in_log:
        wrong = step.check(in_log[key])
        if wrong is None:
            return Decision(step, "skip", "was done", in_log[key])
        return Decision(step, "run", f"{step.title}, again, because {wrong}")
    found = _remembered(storage, step, key) if step.reusable else None
    if found and step.check(found["output"]) is None:
        return Decision(step, "skip", f"inputs have not changed since {found['run']}", found["output"], found["run"])
    return Decision(step, "run", step.title)


def key_of(step: Step, outputs: Outputs) -> str:
    """Hash of the step's inputs."""
    text = json.dumps([step.name, step.inputs(outputs)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def remember(storage: Storage, step: Step, key: str, output: Output, run_id: str) -> None:
    """Note what was done for other runs. The newest counts."""
    text = json.dumps({"run": run_id, "output": output}, ensure_ascii=False, allow_nan=False)
    storage.write(_file(step, key), text.encode())


def _remembered(storage: Storage, step: Step, key: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(storage.read(_file(step, key)))
    except NotFound:
        return None
    except ValueError as error:
        raise IntegrityError(f"{storage.address(_file(step, key))}: is damaged ({error}); delete it") from None
    return found


def _file(step: Step, key: str) -> str:
    return f"steps/{step.name}/{key}.json"
