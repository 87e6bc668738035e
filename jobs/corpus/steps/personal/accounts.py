"""Bank accounts, which have no check digit that is known: words that announce them, and the banks' layouts."""

from __future__ import annotations

import re

from jobs.corpus.steps.personal.context import NOT_AFTER, NOT_BEFORE, after, before, digits, is_something_else

ACCOUNT = re.compile(
    rf"{NOT_BEFORE}(?:[0-9]{{2,6}}(?:([- ])[0-9]{{1,8}}(?:\1[0-9]{{1,7}}){{1,3}})|[0-9]{{10,14}}){NOT_AFTER}"
)
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "국민|KB": ("6-2-6", "3-2-4-3", "3-2-4-2", "4-2-7"),
    "신한": ("3-3-6", "3-2-6", "3-3-8"),
    "우리": ("4-3-6", "3-6-2-3"),
    "하나|KEB": ("3-6-5", "3-2-5-1", "3-6-3"),
    "농협|NH": ("3-4-4-2", "3-2-6", "4-2-6", "6-2-6"),
    "기업|IBK": ("3-6-2-3", "3-2-6", "3-8"),
    "카카오뱅크|카뱅": ("4-2-7",),
    "토스뱅크|토스": ("4-4-4",),
    "케이뱅크|K뱅크": ("3-3-6", "3-4-5"),
    "SC제일|제일": ("3-2-6",),
    "씨티": ("3-6-3", "3-5-3-2", "3-6-4"),
    "대구|아이엠뱅크|iM": ("3-2-6-1", "3-2-6"),
    "부산": ("3-4-4-2", "3-2-6-1"),
    "경남": ("3-2-7", "3-4-4-2"),
    "광주": ("3-3-6", "4-3-6"),
    "전북": ("3-2-7", "4-2-7"),
    "제주": ("2-2-6", "3-2-6"),
    "새마을금고|새마을|MG": ("4-4-4-1", "4-2-6-1", "4-3-6"),
    "신협": ("5-2-6", "3-3-6", "3-2-6-1"),
    "우체국": ("6-2-6",),
    "수협|Sh": ("3-2-7", "4-4-4", "3-2-6"),
    "산업|KDB": ("3-4-4-3", "3-4-4"),
}
"""As printed on passbooks and cards: digits per group."""
_ANY = frozenset(layout for layouts in _LAYOUTS.values() for layout in layouts)
_ANNOUNCED = re.compile(r"계좌|입금|송금|이체|예금주|통장|account", re.IGNORECASE)
_BANKS = tuple(
    (re.compile(rf"(?:{names})(?:은행|뱅크|저축은행)?"), frozenset(layouts)) for names, layouts in _LAYOUTS.items()
)
_LABEL = re.compile(rf"(?:{'|'.join(_LAYOUTS)})(?:은행|뱅크)?[ ]?[:)(\]]?[ ]?$")
_BANK_AFTER = re.compile(rf"[ ]?[(,]?[ ]?(?:{'|'.join(_LAYOUTS)})(?:은행|뱅크|[ ,)])")
_BANK_NAMED = re.compile(r"은행|뱅크|농협|신협|수협|우체국|새마을금고")


def is_account(match: re.Match[str]) -> bool:
    """A number in one of the banks' layouts, behind or before a bank's name or a word such as 계좌.

    A bank's name alone only speaks for that bank's own layouts. In one piece a number must have as many digits as one
    of them.
    """
    if is_something_else(match):
        return False
    lead, trail = before(match), after(match)
    announced = bool(_ANNOUNCED.search(lead) or _ANNOUNCED.search(trail))
    named = bool(_LABEL.search(lead) or _BANK_AFTER.match(trail)) or bool(_BANK_NAMED.search(lead))
    if not (announced or named):
        return False
    own = {layout for pattern, layouts in _BANKS if pattern.search(lead) or pattern.search(trail) for layout in layouts}
    expected = _ANY if announced or not own else own
    groups = "-".join(str(len(group)) for group in re.split("[- ]", match[0]))
    if "-" in groups:
        return groups in expected
    return len(digits(match)) in {sum(map(int, layout.split("-"))) for layout in expected}
