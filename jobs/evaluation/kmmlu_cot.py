"""225 real Korean exam questions, offline: 45 subjects of KMMLU, five each.

They are the worked examples in the chain-of-thought configurations of KMMLU (Son et al. 2024) that ship inside the
wheel of lm-evaluation-harness. Each worked answer ends with the right letter. Asked is as in the harness's KMMLU: the
question with its four options, and which letter the model finds most likely.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import yaml

from jobs.errors import EnvironmentNotReady, IntegrityError
from jobs.evaluation.benchmark import spread
from jobs.evaluation.choices import ACC, MultipleChoice, Question
from jobs.evaluation.files import sha256
from jobs.evaluation.settings import EvaluateSettings

PROMPT = "{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n정답："
LETTERS = "ABCD"

_RIGHT_LETTER = re.compile(r"정답은\s*:?\s*\(?([A-D])\)?")
_PREFIX = "kmmlu_cot_hard_"


def harness_folder() -> Path:
    """The installed harness's `tasks` folder. Raises EnvironmentNotReady naming the command that installs it."""
    spec = importlib.util.find_spec("lm_eval")  # not imported: that would take torch along, seconds before a dry run
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentNotReady("evaluate.benchmarks: lm-evaluation-harness is not installed; run `make harness`")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


def kmmlu_cot(settings: EvaluateSettings) -> MultipleChoice:
    """The benchmark. Raises EnvironmentNotReady if the harness is not installed."""
    folder = harness_folder() / "kmmlu" / "cot_hard"
    files = sorted(folder.glob(f"{_PREFIX}*.yaml"))
    questions = [question for file in files for question in _questions(file)]
    if not questions:
        raise EnvironmentNotReady(f"{folder}: holds no questions; run `make harness` for the version that has them")
    digests = "".join(sha256(file.read_bytes()) for file in files)
    return MultipleChoice(
        name="kmmlu-cot",
        metrics=(ACC,),
        questions=spread(questions, settings.max_rows),
        inputs={f"lm_eval/{folder.name}": sha256(digests.encode()), "prompt template": sha256(PROMPT.encode())},
        batch_size=settings.batch_size,
        lay_out=_lay_out,
    )


def _questions(file: Path) -> list[Question]:
    subject = file.stem.removeprefix(_PREFIX)
    # All scalars stay text: an option reads 0.10 or 1,000, not a number.
    samples = yaml.load(file.read_text(encoding="utf-8"), yaml.CBaseLoader)["fewshot_config"]["samples"]
    questions = []
    for number, sample in enumerate(samples, start=1):
        right = _RIGHT_LETTER.findall(sample["target"])
        if not right:
            raise IntegrityError(f"{file}: the worked answer of sample {number} names no letter")
        questions.append(
            Question(
                id=f"{subject}-{number}",
                subject=subject,
                question=sample["question"].removeprefix("질문:").strip(),
                choices=[sample[letter] for letter in LETTERS],
                answer=LETTERS.index(right[-1]),
            )
        )
    return questions


def _lay_out(question: Question) -> tuple[str, list[str]]:
    a, b, c, d = question.choices
    return PROMPT.format(question=question.question, a=a, b=b, c=c, d=d), [f" {letter}" for letter in LETTERS]
