"""Payment cards."""

from __future__ import annotations

import re

from jobs.corpus.steps.personal.context import (
    DASH,
    NOT_AFTER,
    NOT_BEFORE,
    before,
    digits,
    is_some_number,
    is_something_else,
)

CARD = re.compile(
    rf"{NOT_BEFORE}(?:[0-9]{{4}}(?:(?P<four>{DASH}|[ ])[0-9]{{4}})(?:(?P=four)[0-9]{{4}}){{2}}(?:(?P=four)[0-9]{{3}})?"
    rf"|[0-9]{{4}}(?P<six>{DASH}|[ ])[0-9]{{6}}(?P=six)[0-9]{{4,5}}|[0-9]{{14,19}}){NOT_AFTER}"
)
_ISSUERS = (
    (re.compile("4"), (16, 19)),  # Visa
    (re.compile("5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),  # Mastercard
    (re.compile("3[47]"), (15,)),  # American Express
    (re.compile("35(?:2[89]|[3-8])"), (16,)),  # JCB
    (re.compile("30[0-5]|3[689]"), (14,)),  # Diners Club
    (re.compile("6011|64[4-9]|65"), (16,)),  # Discover
    (re.compile("62"), (16, 17, 18, 19)),  # UnionPay
    (re.compile("9[0-9]"), (16,)),  # Korean cards for use in Korea
)

_CARD_WORDS = re.compile(r"카드|card", re.IGNORECASE)


def is_card(match: re.Match[str]) -> bool:
    """An issuer's prefix with its length (ISO/IEC 7812), and Luhn's check digit."""
    number = digits(match)
    has_issuer = any(prefix.match(number) and len(number) in lengths for prefix, lengths in _ISSUERS)
    if not has_issuer or not _luhn(number) or is_something_else(match):
        return False
    return bool(_CARD_WORDS.search(before(match))) or not is_some_number(match)


def _luhn(number: str) -> bool:
    total = 0
    for index, digit in enumerate(map(int, reversed(number))):
        total += digit if index % 2 == 0 else (2 * digit - 9 if digit > 4 else 2 * digit)
    return total % 10 == 0
