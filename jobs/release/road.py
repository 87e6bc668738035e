"""The road from settings to champion: which steps there are, what each depends on, and what it does."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from jobs import models, settings
from jobs.dataset import content_sha256
from jobs.errors import IntegrityError, UsageError
from jobs.evaluation.files import read_file, sha256
from jobs.evaluation.statistics import Resampling
from jobs.events import EventLog
from jobs.registry.promotion import Office, Serving
from jobs.registry.versions import CHALLENGER, Lineage, model_sha256
from jobs.release import abtest, evidence, gate
from jobs.release.ab import Outcome
from jobs.release.abtest import Held
from jobs.release.gate import Verdict
from jobs.release.machine import Output, Outputs, Step
from jobs.release.serving import Serving as Servers
from jobs.release.subjobs import Jobs, subrun_id
from jobs.runs import Run, read_events
from jobs.settings import DataSettings, Settings
from jobs.storage import NotFound
from jobs.tuning.winner import BEST

_TRAINS_ON = ("model", "lora", "data", "train", "eval", "scaling")
"""Sections that decide what a training makes."""


_ADDRESSES = {
    "data": ("source",),
    "model": ("source",),
    "evaluate": ("subject", "against", "choices", "prompts", "held_out"),
}
"""Settings whose content is hashed in their place."""


class DataChanged(IntegrityError):
    """The dataset is not what the pipeline began with. Exit code 5; put the old one back, or begin anew."""


@dataclass(frozen=True)
class Workshop:
    """What the steps work with."""

    events: EventLog
    office: Office
    jobs: Jobs
    servers: Servers


@dataclass(frozen=True)
class Road:
    """One pipeline's steps. A dry run has no workshop, and takes none of them that need one."""

    tree: Settings
    run: Run
    workshop: Workshop | None = None

    def steps(self) -> list[Step]:
        """All of them, in order."""
        tree, same = self.tree, _same_as_champion
        return [
            Step(
                "data",
                "read the dataset and the base model",
                self._sources,
                self._observe_data,
                reusable=False,
                only_looks=True,
            ),
            Step(
                "tune",
                f"search for the best settings, {tree.tune.samples} trials",
                lambda done: self._sections(done, *_TRAINS_ON, "tune"),
                self._tune,
                self._run_is_there,
                lambda done: None if tree.release.tune else "release.tune=false",
            ),
            Step("train", "train a candidate", self._train_inputs, self._train, self._run_is_there),
            Step("champion", "look up the champion", lambda done: {}, self._look_up_champion, reusable=False),
            Step(
                "evaluate",
                "compare the candidate with the champion",
                self._evaluate_inputs,
                self._evaluate,
                self._run_is_there,
                same,
            ),
            Step(
                "measure",
                "fixed load, answers, merged weights",
                lambda done: self._sections(done, "gate") | _part(done, "evaluate", "run"),
                lambda done: evidence.measure(tree, self._sub("evaluate", done)),
                _gaps,
                same,
            ),
            Step(
                "gate",
                "judge the candidate",
                lambda done: self._sections(done, "gate") | _part(done, "evaluate", "run") | {"load": done["measure"]},
                self._judge,
                not_needed=same,
            ),
            Step(
                "register",
                "register the candidate as challenger",
                lambda done: {"run": done["train"]["run"], "evaluation": done["evaluate"]["run"]},
                self._register,
                self._version_is_there,
                _not_passed,
                reusable=False,
            ),
            Step(
                "ab",
                "deploy the challenger beside the champion, A/B test",
                lambda done: self._sections(done, "ab") | _part(done, "register", "version") | {"c": done["champion"]},
                self._compare,
                not_needed=self._no_ab,
                reusable=False,
            ),
            Step(
                "promote",
                "make the challenger the champion",
                lambda done: _part(done, "register", "version"),
                self._promote,
                not_needed=_not_to_promote,
                reusable=False,
            ),
            Step(
                "withdraw",
                "take the challenger's alias away",
                lambda done: _part(done, "register", "version"),
                self._withdraw,
                not_needed=lambda done: _not_passed(done) or ("it was promoted" if "promote" in done else None),
                reusable=False,
            ),
        ]

    # What steps depend on.

    def _sources(self, _: Outputs) -> dict[str, Any]:
        return {"data": self.tree.data.model_dump(mode="json"), "model": self.tree.model.model_dump(mode="json")}

    def _sections(self, done: Outputs, *names: str) -> dict[str, Any]:
        """Sections of the settings, with contents instead of addresses: a file may lie elsewhere and be the same."""
        tree = self.tree.model_dump(mode="json")
        given = {name: tree[name] for name in {*names, "data", "model"}}
        for section, keys in _ADDRESSES.items():
            given[section] = {k: v for k, v in given.get(section, {}).items() if k not in keys}
        return given | {"sources": done["data"]}

    def _train_inputs(self, done: Outputs) -> dict[str, Any]:
        return self._sections(done, *_TRAINS_ON) | {"best": done.get("tune", {}).get("best")}

    def _evaluate_inputs(self, done: Outputs) -> dict[str, Any]:
        options = self.tree.evaluate
        inputs = {address: sha256(read_file(address, "evaluate")) for address in (options.choices, options.prompts)}
        rows = None if options.held_out is None else content_sha256(DataSettings(source=options.held_out))
        sides = {"candidate": done["train"]["model_sha256"], "champion": done["champion"]["model_sha256"]}
        return self._sections(done, "evaluate") | sides | {"inputs": list(inputs.values()), "held_out": rows}

    # What they do.

    def _observe_data(self, _: Outputs) -> Output:
        folder = models.resolve(self.tree.model)
        return {"data_sha256": content_sha256(self.tree.data), "base_model_sha256": models.identity(folder)}

    def _tune(self, done: Outputs) -> Output:
        self._same_data(done)
        found = self._tools.jobs.run(subrun_id(self.run.id, "tune"), self.tree)
        best = found.storage.read(found.path(BEST)).decode()
        return {"run": found.id, "best": best, "loss": found.result()["best_eval_loss"]}

    def _train(self, done: Outputs) -> Output:
        self._same_data(done)
        tree = self.tree
        if "tune" in done:
            tree = settings.overlaid(tree, done["tune"]["best"], f"{done['tune']['run']}/{BEST}")
        found = self._tools.jobs.run(subrun_id(self.run.id, "train"), tree)
        result = found.result()
        seen = {"data_sha256": result["data"]["content_sha256"], "base_model_sha256": result["base_model_sha256"]}
        if seen != done["data"]:
            raise DataChanged(
                f"{found.id}: was trained on other data or another base than this pipeline began with; begin a new one"
            )
        return {"run": found.id, "model_sha256": model_sha256(found)}

    def _look_up_champion(self, _: Outputs) -> Output:
        serving = self._tools.office.serving()
        if serving.champion is None:
            return {"version": None, "entry": serving.entry, "run": None, "model_sha256": None}
        lineage = self._tools.office.registry.version(serving.champion).lineage
        return {
            "version": serving.champion,
            "entry": serving.entry,
            "run": lineage.run,
            "model_sha256": lineage.model_sha256,
        }

    def _evaluate(self, done: Outputs) -> Output:
        self._same_data(done)
        chosen = {"subject": done["train"]["run"], "against": done["champion"]["run"]}
        tree = self.tree.model_copy(update={"evaluate": self.tree.evaluate.model_copy(update=chosen)})
        found = self._tools.jobs.run(subrun_id(self.run.id, "evaluate"), tree)
        return {"run": found.id, "verdict": found.result()["verdict"]}

    def _judge(self, done: Outputs) -> Output:
        options = self.tree.evaluate
        found = evidence.assemble(self.tree, self._sub("evaluate", done), done["measure"])
        checks = gate.judge(found, self.tree.gate, Resampling(options.resamples, options.confidence, options.seed))
        verdict = gate.overall(checks)
        if verdict is Verdict.INCONCLUSIVE:
            open_ones = "; ".join(f"{c.name}: {c.reason}" for c in checks if c.verdict is Verdict.INCONCLUSIVE)
            raise Held(f"the gate cannot tell: {open_ones}")
        return {
            "verdict": str(verdict),
            "checks": [asdict(check) | {"verdict": str(check.verdict)} for check in checks],
        }

    def _register(self, done: Outputs) -> Output:
        trained = self._sub("train", done)
        config = next(event for event in read_events(trained) if event.kind == "config")
        version = self._tools.office.registry.register(
            Lineage(
                run=trained.id,
                model_sha256=done["train"]["model_sha256"],
                base_model_sha256=done["data"]["base_model_sha256"],
                data_sha256=done["data"]["data_sha256"],
                config_sha256=hashlib.sha256(trained.config().encode()).hexdigest(),
                code=config.fields.get("git_revision") or "unknown",
                evaluation=done["evaluate"]["run"],
            )
        )
        self._tools.office.registry.point(CHALLENGER, version.number)
        return {"version": version.number, "lineage": vars(version.lineage)}

    def _compare(self, done: Outputs) -> Output:
        registry = self._tools.office.registry
        champion, challenger = (registry.version(done[step]["version"]) for step in ("champion", "register"))
        with self._tools.servers.trial(registry.verified_run(champion), registry.verified_run(challenger)) as trial:
            found = abtest.conduct(trial, self.tree.ab, self._tools.events)
        if found["outcome"] == Outcome.HOLD:
            raise Held(f"the A/B test has no answer: {found['reason']}")
        return found

    def _promote(self, done: Outputs) -> Output:
        was = Serving(done["champion"]["version"], done["champion"]["entry"])
        why = done["ab"]["reason"] if "ab" in done else "passed the gate"
        entry = self._tools.office.promote(done["register"]["version"], self.run.id, why, expected=was)
        return asdict(entry)

    def _withdraw(self, done: Outputs) -> Output:
        if self._tools.office.registry.aliases().get(CHALLENGER) == done["register"]["version"]:
            self._tools.office.registry.point(CHALLENGER, None)
        return {"version": done["register"]["version"]}

    # Checks.

    def _same_data(self, done: Outputs) -> None:
        now = self._observe_data(done)
        changed = [name for name, value in done["data"].items() if now[name] != value]
        if changed:
            what = self.tree.data.source if "data_sha256" in changed else self.tree.model.source
            raise DataChanged(
                f"{what}: has changed since {self.run.id} began (sha256 {done['data'][changed[0]][:12]} then, "
                f"{now[changed[0]][:12]} now); put it back and resume, or begin a new pipeline"
            )

    def _run_is_there(self, output: Output) -> str | None:
        found = Run(self.run.storage, output["run"])
        if not found.finished:
            return f"{found.id} is gone"
        if "model_sha256" in output:
            try:
                if model_sha256(found) != output["model_sha256"]:
                    return f"the model of {found.id} is another one now"
            except NotFound:
                return f"the model of {found.id} is gone"
        return None

    def _version_is_there(self, output: Output) -> str | None:
        known = {version.number for version in self._tools.office.registry.versions()}
        return None if output["version"] in known else f"version {output['version']} is gone"

    @property
    def _tools(self) -> Workshop:
        assert self.workshop is not None, "a dry run has no tools"
        return self.workshop

    def _sub(self, step: str, done: Outputs) -> Run:
        return Run.open(self.run.storage, done[step]["run"])

    def _no_ab(self, done: Outputs) -> str | None:
        if reason := _not_passed(done):
            return reason
        if not self.tree.release.ab:
            return "release.ab=false"
        return "there is no champion to compare with" if done["champion"]["version"] is None else None


def check(tree: Settings) -> None:
    """What can be wrong before anything begins. Raises UsageError."""
    missing = [name for name in tree.gate.quality if name not in tree.evaluate.benchmarks]
    if missing:
        raise UsageError(
            f"gate.quality.{missing[0]}: this benchmark is not among evaluate.benchmarks "
            f"({', '.join(tree.evaluate.benchmarks)}), so the gate could never be passed"
        )
    if tree.gate.max_unsafe is not None and "prompts" not in tree.evaluate.benchmarks:
        raise UsageError("gate.max_unsafe: needs the benchmark prompts in evaluate.benchmarks, whose answers it reads")
    content_sha256(tree.data)


def _same_as_champion(done: Outputs) -> str | None:
    same = done["train"]["model_sha256"] == done["champion"]["model_sha256"]
    return f"the candidate is the champion already, version {done['champion']['version']}" if same else None


def _not_passed(done: Outputs) -> str | None:
    if reason := _same_as_champion(done):
        return reason
    return None if done["gate"]["verdict"] == Verdict.PASS else "it did not pass the gate"


def _not_to_promote(done: Outputs) -> str | None:
    if reason := _not_passed(done):
        return reason
    lost = "ab" in done and done["ab"]["outcome"] != Outcome.PROMOTE
    return "it lost the A/B test" if lost else None


def _part(done: Outputs, step: str, key: str) -> dict[str, Any]:
    return {f"{step}.{key}": done[step][key]}


def _gaps(output: Output) -> str | None:
    missing = [name for name, part in output.items() if part is None]
    return f"{', '.join(missing)} could not be measured" if missing else None
