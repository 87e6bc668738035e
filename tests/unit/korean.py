"""Korean text for tests and benchmarks of corpus preparation, made from the training sample."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from jobs.corpus.signatures import SHINGLE_CHARACTERS

SAMPLE = Path(__file__).resolve().parents[2] / "jobs/data/sample_ko.jsonl"


@cache
def paragraphs() -> tuple[str, ...]:
    """Answers of one paragraph, long enough to be kept."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    answers = dict.fromkeys(row["messages"][-1]["content"] for row in rows)
    return tuple(answer for answer in answers if _is_plain(answer))


def _is_plain(text: str) -> bool:
    hangul = sum("가" <= c <= "힣" for c in text)
    return hangul >= 60 and hangul / len("".join(text.split())) > 0.8 and not set("\n*`#|<_") & set(text)


@cache
def sentences() -> tuple[str, ...]:
    """Sentences of these paragraphs."""
    found = (sentence.strip().rstrip(".") for text in paragraphs() for sentence in text.split(". "))
    return tuple(dict.fromkeys(sentence for sentence in found if len(sentence) > 15))


@cache
def _words() -> list[str]:
    return sorted({word for sentence in sentences() for word in sentence.split()})


def texts(count: int, seed: int = 0, sentences_per_text: int = 8) -> list[str]:
    """Unlike texts: words of a sentence are replaced by others from anywhere, so that no run stays whole for long."""
    rng = random.Random(seed)
    words = _words()
    return [
        " ".join(
            " ".join(word if rng.random() < 0.3 else rng.choice(words) for word in rng.choice(sentences()).split())
            + "."
            for _ in range(sentences_per_text)
        )
        for _ in range(count)
    ]


def shingles(text: str) -> set[str]:
    """What two texts are compared by, in plain Python."""
    letters = [c.lower() for c in text if c.isalnum()]
    return {"".join(letters[at : at + SHINGLE_CHARACTERS]) for at in range(len(letters))}


def jaccard(one: str, other: str) -> float:
    """Exact similarity of two texts."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def edited(text: str, similarity: float, rng: random.Random) -> str:
    """The text with as many words replaced as leave at least that similarity."""
    words = text.split()
    for place in rng.sample(range(len(words)), len(words)):
        before, words[place] = words[place], "".join(chr(rng.randrange(ord("가"), ord("힣"))) for _ in range(2))
        if jaccard(text, " ".join(words)) < similarity:
            words[place] = before
            break
    return " ".join(words)
