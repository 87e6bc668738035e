"""Telephone numbers of Korea's numbering plan."""

from __future__ import annotations

import re

from jobs.corpus.steps.personal.context import DASH, NOT_AFTER, NOT_BEFORE, after, before, is_something_else

_GAP = rf"(?:[ ]?{DASH}[ ]?|[.]|[ ])"
_PREFIX = r"(?:01[016789]|02|03[0-3]|04[1-4]|05[1-5]|06[1-4]|050[2-8]|070|080|050)"
PHONE = re.compile(
    rf"(?:{NOT_BEFORE}|(?<=[(]))"
    rf"(?:(?:\+|00[12]{_GAP}?|)82(?:{_GAP}|[)][ ]?|)(?:\(0\))?(?P<abroad>0?{_PREFIX[:3]}{_PREFIX[3:]}|1[016789]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|80)"
    rf"|[(]?(?P<prefix>{_PREFIX}))"
    rf"(?P<first>[)][ ]?{DASH}?|[ ]?[)][ ]?|{_GAP}|)(?P<middle>[0-9]{{3,4}})(?P<second>{_GAP}|)[0-9]{{4}}{NOT_AFTER}"
)
_PHONE_WORDS = re.compile(
    r"전화|연락|문의|상담|콜센터|고객 ?센터|핸드폰|휴대폰|휴대 ?전화|팩스|번호는|☎|☏|📞|tel|fax|phone|call|hp|h\.p|대표 ?번호", re.IGNORECASE
)
_WITH_EIGHT = frozenset({"010", "070", "050"})


def is_phone(match: re.Match[str]) -> bool:
    """Mobile (01x), landline by area code, Internet (070), toll-free (080) and personal (050x) numbers.

    With its separators the layout tells a number; in one piece only behind a prefix that nothing else has (010, 070),
    or behind words that announce one.
    """
    if is_something_else(match):
        return False
    if match["abroad"]:
        return bool(match["first"]) or match[0].startswith(("+", "00"))
    prefix, middle = match["prefix"], match["middle"]
    if prefix in _WITH_EIGHT and len(middle) != 4:
        return False
    if bool(match["first"]) != bool(match["second"]) and not match["first"].strip().endswith(")"):
        return match["first"] == "" and _is_announced(match)
    if match["first"]:
        return True
    return prefix in ("010", "070") or _is_announced(match)


REPRESENTATIVE = re.compile(
    rf"{NOT_BEFORE}1(?:5(?:22|33|44|55|66|77|88|99)|6(?:00|11|4[0-9]|6[0-9]|70|88)|8(?:00|11|33|55|66|77|99))"
    rf"(?P<gap>{DASH}|[ ]|)(?P<last>[0-9]{{4}}){NOT_AFTER}"
)


def is_representative(match: re.Match[str]) -> bool:
    """A company's nationwide number (15xx, 16xx, 18xx and four digits); a span of years looks the same."""
    if is_something_else(match):
        return False
    if _is_announced(match):
        return True
    is_span_of_years = match[0][:4] <= match["last"] <= "2100"
    return bool(match["gap"].strip()) and "~" not in match["gap"] and not is_span_of_years


def _is_announced(match: re.Match[str]) -> bool:
    return bool(_PHONE_WORDS.search(before(match)) or _PHONE_WORDS.match(after(match).lstrip()))
