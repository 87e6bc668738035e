"""Resident and foreigner registration numbers, driver's licences, passports."""

from __future__ import annotations

import datetime
import re

from jobs.corpus.steps.personal.context import (
    DASH,
    NOT_AFTER,
    NOT_BEFORE,
    after,
    before,
    digits,
    is_some_number,
    is_something_else,
)

RESIDENT = re.compile(rf"{NOT_BEFORE}([0-9]{{6}})( ?{DASH} ?| |)([0-9]{{7}}){NOT_AFTER}")
_CENTURY = {**dict.fromkeys("90", 1800), **dict.fromkeys("1256", 1900), **dict.fromkeys("3478", 2000)}
_BIRTH_YEARS = range(1880, 2036)
"""Bounds that no clock moves, so that the same text is always masked alike."""
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_RESIDENT_WORDS = re.compile(
    r"주민|외국인 ?등록|(?<!법인)(?<!사업자)(?<!법인 )(?<!사업자 )등록 ?번호|거소 ?신고|resident|rrn", re.IGNORECASE
)
_TRADE_WORDS = re.compile(r"주문|배송|송장|택배|결제|상품|바코드|조회|시각|로그|epoch|timestamp|order", re.IGNORECASE)
_MILLISECONDS = ("16", "17", "18", "19")
"""How Unix times in milliseconds begin, from 2020 to 2033."""


def is_resident(match: re.Match[str]) -> bool:
    """A citizen's number (Resident Registration Act, enforcement rule 2): birth date YYMMDD, then century and sex."""
    return match[3][0] in "123490" and _is_registration(match, 11)


def is_foreigner(match: re.Match[str]) -> bool:
    """A foreign resident's number: the same with 5 to 8, and a check digit two higher."""
    return match[3][0] in "5678" and _is_registration(match, 13)


def _is_registration(match: re.Match[str], check_base: int) -> bool:
    """A label that names another thing always counts. Else 6-7 digits with a hyphen are enough, or words that announce
    them. Thirteen digits in one piece must also be no barcode. Where they are the number of something, are talked of as
    an order, or look like a timestamp, they need the check digit. It only adds confidence: numbers issued since October
    2020 have none.
    """
    number = digits(match)
    if not _is_date(_CENTURY[number[6]] + int(number[:2]), int(number[2:4]), int(number[4:6])):
        return False
    if is_something_else(match):
        return False
    if _RESIDENT_WORDS.search(before(match)):
        return True
    checked = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    has_check_digit = (check_base - checked % 11) % 10 == int(number[12])
    if match[2].strip():
        return has_check_digit or not is_some_number(match)
    if has_check_digit:
        return not _is_barcode(number)
    in_trade = _TRADE_WORDS.search(before(match)) or _TRADE_WORDS.search(after(match))
    return not (in_trade or is_some_number(match) or _is_barcode(number) or number.startswith(_MILLISECONDS))


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return year in _BIRTH_YEARS


def _is_barcode(number: str) -> bool:
    """An EAN-13 of Korea (880) or of a book (978, 979) with its check digit."""
    total = sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(number))
    return number.startswith(("880", "978", "979")) and total % 10 == 0


_REGION_NAMES = "서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산"
LICENCE = re.compile(
    rf"(?:{NOT_BEFORE}(?P<code>1[1-9]|2[0-68])|(?<![가-힣])(?P<name>{_REGION_NAMES}))(?P<mark>[ ]?{DASH}[ ]?|[ ]|)"
    rf"(?P<year>[0-9]{{2}})(?P<second>{DASH}|[ ]|)(?P<serial>[0-9]{{6}})"
    rf"(?P<third>{DASH}|[ ]|)(?P<check>[0-9]{{2}}){NOT_AFTER}"
)
_LICENCE_WORDS = re.compile(r"면허|licen[cs]e", re.IGNORECASE)


def is_licence(match: re.Match[str]) -> bool:
    """Region code 11 to 26 or 28 (or the region's name), year, serial number, check digits: 2-2-6-2.

    Written without its hyphens only behind the word for it.
    """
    if _LICENCE_WORDS.search(before(match)):
        return True
    hyphened = all(match[name].strip() for name in ("second", "third")) and bool(match["mark"].strip() or match["name"])
    return hyphened and not is_something_else(match) and not is_some_number(match)


PASSPORT = re.compile(
    r"[MSRGDO](?<![0-9A-Za-z_\-/.#=].)(?:[0-9]{8}|[0-9]{3}[A-Z][0-9]{4})(?![0-9A-Za-z_])(?!-[0-9A-Za-z])"
)
_PASSPORT_WORDS = re.compile(r"여권|passport", re.IGNORECASE)


def is_passport(match: re.Match[str]) -> bool:
    """Kind of passport and eight digits, or since December 2021 three digits, a letter and four digits.

    Away from the word for it, a code that is labelled otherwise or holds a date is left alone.
    """
    if _PASSPORT_WORDS.search(before(match)) or _PASSPORT_WORDS.search(after(match)):
        return True
    return not (is_something_else(match) or is_some_number(match) or _holds_date(match[0][1:]))


def _holds_date(number: str) -> bool:
    return (
        number.isdecimal()
        and number[:2] in ("19", "20")
        and _is_date(int(number[:4]), int(number[4:6]), int(number[6:]))
    )
