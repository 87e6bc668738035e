"""Telephone numbers of Korea's numbering plan."""

from __future__ import annotations

import re

from jobs.corpus.steps.personal.context import DASH, NOT_AFTER, NOT_BEFORE, after, before, is_something_else

_GAP = rf"(?:[ ]?{DASH}[ ]?|[.]|[ ])"
_AREA = "1[016789]|2|3[0-3]|4[1-4]|5[1-5]|6[1-4]|50[2-8]?|70|80"
PHONE = re.compile(
    rf"{NOT_BEFORE}"
    rf"(?:(?:\+|00[127]{_GAP}?|)82(?:{_GAP}|[)][ ]?|)(?:\(0\))?0?(?P<abroad>{_AREA})|[(]?0(?P<area>{_AREA}))"
    rf"(?P<first>[ ]?[)][ ]?(?:{DASH}[ ]?)?|{_GAP}|)(?P<middle>[0-9]{{3,4}})(?P<second>{_GAP}|)[0-9]{{4}}{NOT_AFTER}"
)
_PHONE_WORDS = re.compile(
    r"전화|연락|문의|상담|콜센터|고객 ?센터|핸드폰|휴대폰|팩스|대표 ?번호|☎|☏|📞|tel|fax|phone|call|\bhp\b|h\.p",
    re.IGNORECASE,
)
_WITH_EIGHT = frozenset({"10", "70", "50"})


def is_phone(match: re.Match[str]) -> bool:
    """Mobile (01x), landline by area code, Internet (070), toll-free (080) and personal (050x) numbers.

    With its separators the layout tells a number; in one piece only behind a prefix that nothing else has (010, 070),
    or behind words that announce one.
    """
    if is_something_else(match):
        return False
    if match["abroad"]:
        return bool(match["first"]) or match[0].startswith(("+", "00"))
    area, middle = match["area"], match["middle"]
    if area in _WITH_EIGHT and len(middle) != 4:
        return False
    if bool(match["first"]) != bool(match["second"]) and not match["first"].strip().endswith(")"):
        return match["first"] == "" and _is_announced(match)
    if match["first"]:
        return True
    return area in ("10", "70") or _is_announced(match)


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
    return bool(_PHONE_WORDS.search(before(match)) or _PHONE_WORDS.search(after(match)))
