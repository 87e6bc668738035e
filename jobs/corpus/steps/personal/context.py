"""What the words around a number say about it."""

from __future__ import annotations

import re

BEFORE, AFTER = 30, 15
"""Characters that are looked at on either side."""

NOT_BEFORE = r"(?<![0-9A-Za-z_])(?<![0-9][-.,/:])(?<![=/#])"
NOT_AFTER = r"(?![0-9A-Za-z_])(?![-.,/:][0-9])"
"""A number inside a longer number, a name or an address on the web is not one by itself."""
DASH = "[-\u2010-\u2015\u2212~]"
_OTHER_THING = (
    r"(?:주문|배송|송장|운송장|등기|접수|예약|승인|거래|관리|문서|품목|상품|제품|부품|모델|도서|일련|고유|사건|사업자(?:등록)?|"
    r"법인(?:등록)?|특허|출원|허가|신고|고시|참조|회원|학번|쿠폰|티켓|바코드|추적|발주|견적|계약|증권|시리얼|로트|영수증|"
    r"order|invoice|serial|tracking|model|part|item|lot|sku|isbn|issn|barcode|ticket|build|version|버전|빌드|코드|품번|"
    r"타임스탬프|timestamp)"
)
_LABELLED_OTHER = re.compile(
    rf"{_OTHER_THING}[ ]?(?:등록)?(?:[ ]?(?:번호|코드|명|no\.?|number|id|번))?[ ]?(?:은|는|이|가|을|를)?[ ]?[:=#(\[\"']?[ ]?$",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(r"[ ]?(?:원|달러|엔|유로|위안|개|명|건|회|쪽|페이지|번지|호기|㎡|㎞|km|kg|%|ms|초|바이트|년|제곱)")


def before(match: re.Match[str]) -> str:
    """The text that leads up to the match, on its line."""
    return match.string[max(0, match.start() - BEFORE) : match.start()].rpartition("\n")[2]


def after(match: re.Match[str]) -> str:
    """The text that follows the match, on its line."""
    return match.string[match.end() : match.end() + AFTER].partition("\n")[0]


def is_something_else(match: re.Match[str]) -> bool:
    """The number is labelled as an order, a product or the like, or it counts something."""
    return bool(_LABELLED_OTHER.search(before(match)) or _UNIT_AFTER.match(match.string, match.end()))


def digits(match: re.Match[str]) -> str:
    """The match without separators."""
    return "".join(filter(str.isdecimal, match[0]))
