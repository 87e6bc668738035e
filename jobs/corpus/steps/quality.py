"""Rules that a text must pass. All shares are measured on the text without its fenced code.

| rule | source of rule and default |
|---|---|
| length | EleutherAI's dps, korean_job.yaml: 50 to 100,000 characters |
| symbols, bullets, ellipses | Gopher (Rae et al. 2021, A.1.1), and dps after it; not the signs of Markdown headings |
| mean word length | Gopher and dps: 3 to 10. Plain Korean has about 3, so that 3 takes sound text: from 2 on |
| Hangul | dps: 0.25, but of letters alone, and without the Hanja that its class ㄱ-힣 takes in |
| Hanja, Latin | own: classical Chinese and English pages with a Korean frame |
| broken | own, after Polyglot-Ko's "broken code" (Ko et al. 2023, section 3) |
| repeated lines, word runs | Gopher, table A1 |

Left out: C4's rule that lines end in punctuation (Raffel et al. 2020), and dropping single lines that repeat between
documents. Korean lists, tables and statutes do both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.corpus.cleaning_settings import QualitySettings
from jobs.corpus.steps import repetition
from jobs.corpus.steps.code import prose

RULES = (
    "too_short",
    "too_long",
    "broken_encoding",
    "hangul_share",
    "hanja_share",
    "latin_share",
    "mean_word_length",
    "symbols",
    "bullets",
    "ellipses",
    "repeated_lines",
    "repeated_word_runs",
)
Verdict = tuple[str, str]
_SPACE, _HANGUL, _HANJA, _LATIN, _BROKEN, _LETTER, _PAIR = range(1, 8)
_CLASSES = 8
_MIN_WORDS = 50
"""Gopher's shortest document, which its shares are made for: in a line of ten words any pair is a fifth of it."""
_MIN_LINES = 5
_HEADING = re.compile("^#{1,6}(?= )", re.MULTILINE)
_BULLETS = ("-", "*", "•", "·", "○", "●", "■", "□", "▶", "◆", "◇", "※", "▪", "‣")


def _classes() -> NDArray[np.uint8]:
    table = np.zeros(0x10000, dtype=np.uint8)
    for kind, ranges in {
        _LETTER: ((0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x10FF), (0x1200, 0x1FFF), (0x3041, 0x30FF)),
        _SPACE: ((0x09, 0x0D), (0x20, 0x20)),
        _HANGUL: ((0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3131, 0x318E), (0xA960, 0xA97C), (0xD7B0, 0xD7FB)),
        _HANJA: ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF)),
        _LATIN: ((0x41, 0x5A), (0x61, 0x7A)),
        _BROKEN: ((0xFFFD, 0xFFFD),),
        _PAIR: ((0xDC00, 0xDFFF),),  # second half of a character beyond 0xFFFF
    }.items():
        for first, last in ranges:
            table[first : last + 1] = kind
    return table


_CLASS_OF = _classes()


def judge(text: str, bounds: QualitySettings) -> Verdict | None:
    """The first rule that a document breaks, with what was measured; None if it passes all of them."""
    return _judge(text, bounds, bounds.min_characters, _counts(prose(text)))


def judge_conversation(turns: Sequence[str], bounds: QualitySettings) -> Verdict | None:
    """The same for the turns of a conversation taken together, with two differences: "네." is a good answer, so there
    is no shortest length; and one turn in Korean is enough, as who asks for a translation gets another language."""
    most_korean = max((_counts(prose(turn)) for turn in turns), key=_hangul_share)
    return _judge("\n".join(turns), bounds, 1, most_korean)


def _judge(text: str, bounds: QualitySettings, min_characters: int, script: list[int]) -> Verdict | None:
    without_code = prose(text)
    counts = _counts(without_code)
    characters = _characters(counts if without_code is text else _counts(text))
    if characters < min_characters:
        return "too_short", f"{characters} characters < {min_characters}"
    if characters > bounds.max_characters:
        return "too_long", f"{characters} characters > {bounds.max_characters}"
    words = without_code.split()
    return (
        _above("broken_encoding", counts[_BROKEN] / max(1, _characters(counts)), bounds.max_broken)
        or _script(script, bounds)
        or _words(_characters(counts), len(words), without_code, bounds)
        or _lines(without_code, bounds)
        or _runs(words, bounds)
    )


def _counts(text: str) -> list[int]:
    units = np.frombuffer(text.encode("utf-16-le"), dtype=np.uint16)
    counts: list[int] = np.bincount(_CLASS_OF[units], minlength=_CLASSES).tolist()
    return counts


def _characters(counts: list[int]) -> int:
    """Characters that are no spaces."""
    return sum(counts) - counts[_SPACE] - counts[_PAIR]


def _letters(counts: list[int]) -> int:
    return counts[_HANGUL] + counts[_HANJA] + counts[_LATIN] + counts[_LETTER]


def _hangul_share(counts: list[int]) -> float:
    return counts[_HANGUL] / max(1, _letters(counts))


def _script(counts: list[int], bounds: QualitySettings) -> Verdict | None:
    letters = max(1, _letters(counts))
    if _hangul_share(counts) < bounds.min_hangul:
        return "hangul_share", f"{_hangul_share(counts):.3f} < {bounds.min_hangul:g}"
    return _above("hanja_share", counts[_HANJA] / letters, bounds.max_hanja) or _above(
        "latin_share", counts[_LATIN] / letters, bounds.max_latin
    )


def _words(characters: int, words: int, text: str, bounds: QualitySettings) -> Verdict | None:
    if not words:  # nothing but code
        return None
    mean = characters / words
    if mean < bounds.min_mean_word_length:
        return "mean_word_length", f"{mean:.2f} < {bounds.min_mean_word_length:g}"
    hashes = text.count("#") - sum(map(len, _HEADING.findall(text))) if "#" in text else 0
    symbols = max(hashes, text.count("...") + text.count("…"))
    return _above("mean_word_length", mean, bounds.max_mean_word_length) or _above(
        "symbols", symbols / words, bounds.max_symbols_per_word
    )


def _lines(text: str, bounds: QualitySettings) -> Verdict | None:
    lines = [line for line in text.split("\n") if line]
    if len(lines) < _MIN_LINES:
        return None
    bullets = sum(line.startswith(_BULLETS) for line in lines) / len(lines)
    ellipses = sum(line.endswith(("...", "…")) for line in lines) / len(lines)
    verdict = _above("bullets", bullets, bounds.max_bullet_lines)
    verdict = verdict or _above("ellipses", ellipses, bounds.max_ellipsis_lines)
    if verdict:
        return verdict
    repeated, characters = repetition.repeated_lines(lines)
    return _above("repeated_lines", repeated, bounds.max_repeated_lines) or _above(
        "repeated_lines", characters, bounds.max_repeated_line_characters
    )


def _runs(words: list[str], bounds: QualitySettings) -> Verdict | None:
    if not bounds.repeated_word_runs or len(words) < _MIN_WORDS:
        return None
    found = repetition.repeated_runs(words)
    return ("repeated_word_runs", found) if found else None


def _above(rule: str, share: float, bound: float) -> Verdict | None:
    return (rule, f"{share:.3f} > {bound:g}") if share > bound else None
