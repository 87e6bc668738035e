"""A Dockerfile as a list of instructions, which is all that the tests here need of it."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Instruction:
    keyword: str
    text: str


def instructions(path: Path) -> list[Instruction]:
    """The instructions of the file, comments dropped and continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def last_stage(path: Path) -> list[Instruction]:
    """What comes after the last FROM."""
    found = instructions(path)
    start = max(number for number, instruction in enumerate(found) if instruction.keyword == "FROM")
    return found[start:]
