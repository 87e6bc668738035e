"""From candidates to tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from jobs.corpus.cleaning_settings import PersonalData
from jobs.corpus.steps.personal import accounts, cards, identity, network, phones
from jobs.corpus.steps.personal.tokens import TOKEN_OF

Check = Callable[[re.Match[str]], bool]

_NUMBER = re.compile(r"[0-9(+][0-9 ().~\-\u2010-\u2015\u2212]{5,}[0-9]")
"""Anything that a number of eight digits or more can be part of. Most texts have few, and only these are looked at."""
_DIGITS = re.compile("[0-9]")
_MIN_DIGITS = 8
_REACH = 8
"""Characters. A licence may begin with its region's name, and what follows a number decides whether it ends there."""
_NUMBERS: tuple[tuple[PersonalData, re.Pattern[str], Check], ...] = (
    ("resident_number", identity.RESIDENT, identity.is_resident),
    ("foreigner_number", identity.RESIDENT, identity.is_foreigner),
    ("card", cards.CARD, cards.is_card),
    ("driver_licence", identity.LICENCE, identity.is_licence),
    ("phone", phones.PHONE, phones.is_phone),
    ("phone", phones.REPRESENTATIVE, phones.is_representative),
    ("account", accounts.ACCOUNT, accounts.is_account),
)
"""Surest first: the first kind that claims a stretch of text has it."""

Span = tuple[int, int, PersonalData]


def mask(text: str, kinds: Sequence[PersonalData]) -> tuple[str, Counter[str]]:
    """The text with all data of these kinds replaced by their tokens, and how many there were of each."""
    spans = sorted(_spans(text, frozenset(kinds)))
    if not spans:
        return text, Counter()
    pieces, position = [], 0
    found: Counter[str] = Counter()
    for start, end, kind in spans:
        if start < position:
            continue
        pieces += [text[position:start], TOKEN_OF[kind]]
        position = end
        found[kind] += 1
    return "".join([*pieces, text[position:]]), found


def _spans(text: str, kinds: frozenset[PersonalData]) -> Iterator[Span]:
    if "email" in kinds and "@" in text:
        yield from _found(network.EMAIL, network.is_email, "email", text)
    if "ip_address" in kinds:
        if text.count(".") >= 3:
            yield from _found(network.IPV4, network.is_ipv4, "ip_address", text)
        if text.count(":") >= 2:
            yield from _found(network.IPV6, network.is_ipv6, "ip_address", text)
    if "passport" in kinds:
        yield from _found(identity.PASSPORT, identity.is_passport, "passport", text)
    numbers = [row for row in _NUMBERS if row[0] in kinds]
    for candidate in _NUMBER.finditer(text) if numbers else ():
        if len(_DIGITS.findall(candidate[0])) >= _MIN_DIGITS:
            yield from _in_number(text, candidate, numbers)


def _found(pattern: re.Pattern[str], check: Check, kind: PersonalData, text: str) -> Iterator[Span]:
    return ((*match.span(), kind) for match in pattern.finditer(text) if check(match))


def _in_number(
    text: str, candidate: re.Match[str], numbers: Sequence[tuple[PersonalData, re.Pattern[str], Check]]
) -> Iterator[Span]:
    start, end = max(0, candidate.start() - _REACH), min(len(text), candidate.end() + _REACH)
    taken: list[tuple[int, int]] = []
    for kind, pattern, check in numbers:
        for match in pattern.finditer(text, start, end):
            if all(match.end() <= first or match.start() >= last for first, last in taken) and check(match):
                taken.append(match.span())
                yield (*match.span(), kind)
