"""What the words around a number say about it."""

from __future__ import annotations

import re

BEFORE, AFTER = 30, 15
"""Characters that are looked at on either side."""

NOT_BEFORE = r"(?<![0-9A-Za-z_])(?<![0-9][-.,/:])(?<![0-9A-Za-z]/)"
NOT_AFTER = r"(?![0-9A-Za-z_])(?![-.,/:][0-9])"
"""A number inside a longer number, a name or an address on the web is not one by itself."""
DASH = "[-\u2010-\u2015\u2212~]"
_NUMBERED = (
    "주문|배송|송장|운송장|등기|접수|예약|승인|거래|관리|문서|품목|상품|제품|부품|모델|도서|일련|고유|사건|"
    "사업자 ?(?:등록)?|법인 ?(?:등록)?|특허|출원|허가|신고|고시|참조|회원|쿠폰|"
    "티켓|추적|발주|견적|계약|증권|로트|영수증|민원|청구"
)
"""Things that have numbers; only 번호, 코드 and the like behind them make a label, as 예약 010-… is a telephone."""
_NAMED = (
    "학번|품번|코드|바코드|시리얼|모델명?|버전|빌드|타임스탬프|지번|좌표|order|invoice|serial|tracking|model|part|item|"
    r"lot|\bid|sku|isbn|issn|barcode|ticket|build|version|timestamp|ean|사업자|법인"
)
_LABELLED_OTHER = re.compile(
    rf"(?:(?:{_NUMBERED})[ ]?(?:번호|코드|명|no\.?)|(?:{_NAMED})(?:[ ]?(?:번호|no\.?|number|id))?)"
    r"(?:은|는|이|가|을|를)?[ ]?[:=#(\[\"']?[ ]?$",
    re.IGNORECASE,
)
_WEB = re.compile(r"(?:://|www[.])\S*$")
_UNIT_AFTER = re.compile(
    r"[ ]?(?:원|달러|엔|유로|위안|개|명|건|회|쪽|페이지|번지|호기|㎡|㎞|km|kg|%|ms|초|바이트|년|제곱)"
)
_ANY_NUMBER = re.compile(r"[가-힣]{2}[ ]?(?:번호|코드)(?:은|는|이|가|을|를)?[ ]?[:=#(\[\"']?[ ]?$")


def before(match: re.Match[str]) -> str:
    """The text that leads up to the match, on its line."""
    return match.string[max(0, match.start() - BEFORE) : match.start()].rpartition("\n")[2]


def after(match: re.Match[str]) -> str:
    """The text that follows the match, on its line."""
    return match.string[match.end() : match.end() + AFTER].partition("\n")[0]


def is_something_else(match: re.Match[str]) -> bool:
    """The number is labelled as an order, a product or the like, counts something, or is part of a web address."""
    lead = before(match)
    return bool(_LABELLED_OTHER.search(lead) or _UNIT_AFTER.match(match.string, match.end()) or _WEB.search(lead))


def is_some_number(match: re.Match[str]) -> bool:
    """The number is labelled as the number of something. That may be a person's telephone (엄마 번호), so it only
    speaks against other kinds, and their own labels have to be asked for first."""
    return bool(_ANY_NUMBER.search(before(match)))


def digits(match: re.Match[str]) -> str:
    """The match without separators."""
    return "".join(filter(str.isdecimal, match[0]))
