"""Where a run stands, told from its directory and, on a cluster, from its RayJob. The same words for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from jobs.cluster.diagnosis import Finding, Phase
from jobs.errors import Interrupted
from jobs.events import Event
from jobs.run_lock import Holder, holder
from jobs.runs import End, Run, ended, job_of, read_events

STATES = ("finished", "running", "waiting", "failed", "stopped", "interrupted")
"""`stopped` was asked for; `interrupted` was cut off and left no word."""


@dataclass(frozen=True)
class Progress:
    """How far the events say that training came."""

    step: int
    steps: int
    loss: float | None

    def __str__(self) -> str:
        return f"{self.step}/{self.steps}" + (f"  loss {self.loss:.3f}" if self.loss is not None else "")


@dataclass(frozen=True)
class Row:
    """One run in `make runs`."""

    run_id: str
    state: str
    progress: Progress | None
    where: str
    end: End | None

    @property
    def job(self) -> str:
        """What kind of work it is."""
        return job_of(self.run_id)

    @property
    def started(self) -> datetime:
        """When it was made, from its id."""
        stamp = "-".join(self.run_id.rsplit("-", 3)[1:3])
        return datetime.strptime(stamp, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)


def row(run: Run, finding: Finding | None = None, place: str = "") -> Row:
    """Read one run; `finding` is what its RayJob says, if it has one at `place`."""
    finished, held, events = run.finished, holder(run.storage, run.path()), read_events(run)
    where = place if finding else f"process {held.pid} on {held.host}" if held else ""
    state = judge(finished=finished, held=held, end=ended(events), finding=finding)
    return Row(run.id, state, progress(events), where if state in ("running", "waiting") else "", ended(events))


def judge(*, finished: bool, held: Holder | None, end: End | None, finding: Finding | None) -> str:
    """One of STATES. The result comes first, then who is at work, then what was said last."""
    if finished:
        return "finished"
    if finding and finding.phase in (Phase.WAITING, Phase.RUNNING):
        return finding.phase.value
    if held and (held.is_here or finding is None):
        return "running"
    if finding and finding.phase is Phase.STOPPED:
        return "stopped"
    if end:
        return "stopped" if end.exit_code == Interrupted.exit_code else "failed"
    return "failed" if finding and finding.phase is Phase.FAILED else "interrupted"


def progress(events: Iterable[Event]) -> Progress | None:
    """Of the last point of the curve; None before the first one."""
    found = None
    for event in events:
        if event.kind == "metrics":
            loss = event.fields["values"].get("loss", found.loss if found else None)
            found = Progress(event.fields["step"], event.fields["steps"], loss)
    return found


def line(event: Event) -> str:
    """An event as a line for people."""
    fields = event.fields
    match event.kind:
        case "metrics":
            values = "  ".join(f"{name} {value:.4g}" for name, value in fields["values"].items())
            text = f"step {fields['step']}/{fields['steps']}  {values}"
        case "checkpoint":
            loss = fields["eval_loss"]
            text = f"checkpoint {fields['name']}" + (f", held-out loss {loss:.4f}" if loss is not None else "")
        case "phase":
            text = f"{fields['name']} took {fields['seconds']:.1f} s"
        case "failed":
            text = f"failed: {fields['reason']}"
        case "plan":
            text = str(fields["table"])
        case kind:
            text = kind
    return f"{datetime.fromtimestamp(event.time_unix_s):%H:%M:%S} {text}"
