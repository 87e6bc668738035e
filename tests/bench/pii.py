"""How much planted personal data is masked, how many look-alikes are left alone, how fast all of cleaning is.

    python -m tests.bench.pii [rows per kind, default 3000]

The numbers are made from what the issuers publish, not from the detectors' patterns, and stand in Korean sentences:
some that announce them, some that do not, with particles attached, with and without separators.
"""

from __future__ import annotations

import datetime
import itertools
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from jobs.corpus.cleaning_settings import CleaningSettings
from jobs.corpus.steps import Cleaner, mask

Maker = Callable[[random.Random], str]
_NEUTRAL = (
    "어제 받은 메모에는 {} 하나만 적혀 있었습니다.",
    "{}입니다. 확인해 주세요.",
    "아래와 같이 알려 드립니다: {}",
    "김민수 씨는 {}(이)라고 답했다.",
    "담당자({})에게 맡겼습니다.",
    "2024년 3월 5일 접속, {}, 처리 완료.",
    "1. 이름: 박서연 2. {} 3. 서울시 종로구",
    "그 사람 것은 {}인데 자주 바뀝니다.",
    "메모:{}.",
    "“{}” 라고 쓰여 있다.",
    "총 3건 중 두 번째는 {}, 세 번째는 비어 있었다.",
)


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _joined(rng: random.Random, *groups: str, separators: tuple[str, ...] = ("-", "-", "-", "-", " ", "")) -> str:
    return rng.choice(separators).join(groups)


def _sentence(rng: random.Random, value: str, announcing: tuple[str, ...], announced: float = 0.5) -> str:
    pool = announcing if rng.random() < announced else _NEUTRAL
    return rng.choice(pool).format(value)


def _birth(rng: random.Random) -> datetime.date:
    return datetime.date(1930, 1, 1) + datetime.timedelta(days=rng.randrange(365 * 95))


def _registration(rng: random.Random, foreigner: bool) -> str:
    born = _birth(rng)
    sex = (1 if born.year < 2000 else 3) + rng.randrange(2) + (4 if foreigner else 0)
    body = f"{born:%y%m%d}{sex}{_digits(rng, 5)}"
    weighted = sum(int(body[i]) * (i % 8 + 2) for i in range(12))
    check = ((13 if foreigner else 11) - weighted % 11) % 10
    last = str(check) if rng.random() < 0.6 else _digits(rng, 1)  # the others were issued since October 2020
    return _joined(rng, body[:6], body[6:] + last, separators=("-", "-", "-", "-", "-", " - ", " ", ""))


def _resident(rng: random.Random) -> str:
    announcing = ("주민등록번호는 {}입니다.", "주민번호 {} 를 적어 주세요.", "주민등록번호: {}", "(주민번호:{}) 김철수")
    return _sentence(rng, _registration(rng, False), announcing)


def _foreigner(rng: random.Random) -> str:
    announcing = ("외국인등록번호 {}로 조회했습니다.", "외국인 등록번호: {}", "외국인등록증 번호는 {}이다.")
    return _sentence(rng, _registration(rng, True), announcing)


def _licence(rng: random.Random) -> str:
    area = rng.choice([str(n) for n in range(11, 27)] + ["28"])
    groups = (area, f"{rng.randrange(70, 125) % 100:02d}", _digits(rng, 6), _digits(rng, 2))
    announcing = ("운전면허번호는 {}입니다.", "면허 번호 {}로 등록", "운전면허증: {}")
    if rng.random() < 0.15:
        return rng.choice(announcing).format(_joined(rng, *groups, separators=("", " ")))
    if rng.random() < 0.2:
        region = rng.choice(("서울", "부산", "경기", "제주", "대구"))
        return _sentence(rng, f"{region} {'-'.join(groups[1:])}", announcing)
    return _sentence(rng, "-".join(groups), announcing)


def _passport(rng: random.Random) -> str:
    letter = rng.choice("MMMMSRGDO")
    old = letter + rng.choice("1234567") + _digits(rng, 7)
    new = f"{letter}{_digits(rng, 3)}{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{_digits(rng, 4)}"
    announcing = ("여권번호는 {}입니다.", "여권 {}을 잃어버렸다.", "{} (여권)", "passport no. {} 로 예약했습니다.")
    return _sentence(rng, rng.choice((old, new)), announcing, 0.7)


_PHONE_SENTENCES = (
    "전화번호는 {}이니 연락 주세요.",
    "문의: {}",
    "궁금하시면 {}로 전화하세요.",
    "☎ {}",
    "Tel. {} / 담당 이지은",
    "휴대폰 {}번으로 문자 보내 주세요",
    "연락처={}",
)
_PHONE_MARKS = ("-", "-", "-", "-", ".", " ", "")


def _mobile(rng: random.Random) -> str:
    if rng.random() < 0.1:
        number = _joined(rng, "01" + rng.choice("16789"), rng.choice("23456789") + _digits(rng, 2), _digits(rng, 4),
                         separators=("-", ".", " "))  # fmt: skip
    elif rng.random() < 0.15:
        number = _joined(
            rng, "+82", "10", rng.choice("23456789") + _digits(rng, 3), _digits(rng, 4), separators=("-", " ")
        )
    else:
        number = _joined(rng, "010", rng.choice("23456789") + _digits(rng, 3), _digits(rng, 4), separators=_PHONE_MARKS)
    return _sentence(rng, number, _PHONE_SENTENCES)


def _landline(rng: random.Random) -> str:
    areas = ("02", "02", "02", "031", "032", "033", "041", "042", "043", "044", "051", "052", "053", "054", "055")
    area = rng.choice((*areas, "061", "062", "063", "064", "070"))
    middle = rng.choice("23456789") + _digits(rng, 3 if area == "070" else rng.choice((2, 3)))
    last = _digits(rng, 4)
    form = rng.random()
    if form < 0.1:
        return rng.choice(_PHONE_SENTENCES).format(area + middle + last)
    if form < 0.2:
        return _sentence(rng, f"{area}){middle}-{last}", _PHONE_SENTENCES)
    if form < 0.3:
        return _sentence(rng, f"({area}) {middle}-{last}", _PHONE_SENTENCES)
    return _sentence(rng, _joined(rng, area, middle, last, separators=("-", "-", "-", ".", " ")), _PHONE_SENTENCES)


def _personal_number(rng: random.Random) -> str:
    area = rng.choice(("0502", "0503", "0504", "0505", "0507", "0508"))
    number = _joined(rng, area, _digits(rng, rng.choice((3, 4))), _digits(rng, 4), separators=("-", "-", " ", "."))
    return _sentence(rng, number, _PHONE_SENTENCES)


def _nationwide(rng: random.Random) -> str:
    area = rng.choice(("1522", "1533", "1544", "1566", "1577", "1588", "1599", "1600", "1644", "1661", "1666", "1670",
                       "1688", "1800", "1811", "1833", "1855", "1877", "1899"))  # fmt: skip
    return _sentence(rng, _joined(rng, area, _digits(rng, 4), separators=("-",)), _PHONE_SENTENCES, 0.8)


def _email(rng: random.Random) -> str:
    name = rng.choice(("minsu", "seoyeon.park", "kim_jh", "lee-jieun", "hong+news", "dev")) + _digits(
        rng, rng.randrange(4)
    )
    host = rng.choice(
        ("naver.com", "gmail.com", "daum.net", "hanmail.net", "corp.example.co.kr", "snu.ac.kr", "mail.kr")
    )
    announcing = ("메일은 {}입니다.", "{}로 보내 주세요.", "이메일:{}", "주소는{}이고")
    return _sentence(rng, f"{name}@{host}", announcing)


def _with_luhn(body: str) -> str:
    doubled = [int(d) if i % 2 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(body))]
    return body + str(-sum(doubled) % 10)


def _card(rng: random.Random) -> str:
    prefix, length = rng.choice((("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("37", 15), ("3569", 16), ("36", 14),
                                 ("6011", 16), ("62", 16), ("9410", 16), ("9490", 16)))  # fmt: skip
    number = _with_luhn(prefix + _digits(rng, length - len(prefix) - 1))
    groups = [number[i : i + 4] for i in range(0, 16, 4)] if length == 16 else [number[:4], number[4:10], number[10:]]
    announcing = ("카드번호 {}로 결제했습니다.", "신용카드: {}", "법인카드는 {}입니다.")
    return _sentence(rng, _joined(rng, *groups, separators=("-", "-", "-", " ", "")), announcing)


def _account(rng: random.Random) -> str:
    bank, groups = rng.choice((("국민은행", (6, 2, 6)), ("신한은행", (3, 3, 6)), ("우리은행", (4, 3, 6)),
                               ("하나은행", (3, 6, 5)), ("농협", (3, 4, 4, 2)), ("기업은행", (3, 6, 2, 3)),
                               ("카카오뱅크", (4, 2, 7)),
                               ("토스뱅크", (4, 4, 4)), ("케이뱅크", (3, 3, 6)), ("새마을금고", (4, 4, 4, 1)),
                               ("우체국", (6, 2, 6)), ("부산은행", (3, 4, 4, 2))))  # fmt: skip
    parts = [rng.choice("123456789") + _digits(rng, size - 1) for size in groups]
    number = _joined(rng, *parts, separators=("-", "-", "-", ""))
    sentences = ("{b} {n} 예금주 김민수", "계좌번호는 {n} ({b})입니다.", "{n} {b} 이지은으로 입금해 주세요.",
                 "{b}: {n}", "회비는 {b} {n}로 보내세요.", "입금 계좌 {n}")  # fmt: skip
    return rng.choice(sentences).format(b=bank, n=number)


def _address(rng: random.Random) -> str:
    if rng.random() < 0.25:
        groups = [f"{rng.randrange(1, 65536):x}" for _ in range(6)]
        network = f"2001:{rng.choice(('2d8', '220', 'e60'))}:"
        value = network + (":".join(groups[:2]) + "::1" if rng.random() < 0.5 else ":".join(groups))
    else:
        value = f"{rng.choice((1, 14, 27, 58, 59, 112, 121, 175, 203, 210, 211, 218))}." + ".".join(
            str(rng.randrange(1, 255)) for _ in range(3)
        )
    return _sentence(
        rng, value, ("IP {}에서 접속했습니다.", "접속 주소: {}", "서버({})가 응답하지 않는다.", "{}로 로그인")
    )


PLANTED: dict[str, Maker] = {
    "resident number": _resident,
    "foreigner number": _foreigner,
    "driver's licence": _licence,
    "passport": _passport,
    "mobile": _mobile,
    "landline, 070": _landline,
    "050x": _personal_number,
    "15xx, 16xx, 18xx": _nationwide,
    "e-mail": _email,
    "card": _card,
    "bank account": _account,
    "IP address": _address,
}


def _day(rng: random.Random) -> datetime.datetime:
    return datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=rng.randrange(350_000_000))


def _of(sentences: tuple[str, ...], *values: Maker, announced: float = 0.7) -> Maker:
    return lambda rng: _sentence(rng, rng.choice(values)(rng), sentences, announced)


def _isbn(rng: random.Random) -> str:
    body = "97" + rng.choice("89") + rng.choice(("89", "11")) + _digits(rng, 7)
    check = -sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(body)) % 10
    return rng.choice((f"{body}{check}", f"{body[:3]}-{body[3:5]}-{body[5:9]}-{body[9:]}-{check}"))


def _barcode(rng: random.Random) -> str:
    body = "880" + _digits(rng, 9)
    return body + str(-sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(body)) % 10)


LOOK_ALIKES: dict[str, Maker] = {
    "order number": _of(
        ("주문번호 {}가 접수되었습니다.", "주문번호: {}", "주문하신 {} 건은 내일 도착합니다.", "[주문 번호 {}]"),
        lambda r: f"{_day(r):%Y%m%d}-{_digits(r, 7)}",
        lambda r: f"{_day(r):%Y%m%d%H%M%S}{_digits(r, 3)}",
        lambda r: f"ORD-{_day(r):%y%m%d}-{_digits(r, 5)}",
        lambda r: f"{_day(r):%y%m%d}-{_digits(r, 5)}",
        announced=0.7,
    ),
    "order number like a resident number": _of(
        ("주문번호 {}가 접수되었습니다.", "주문번호: {}", "접수번호는 {}이다.", "문서 번호 {}", "주문하신 {} 건"),
        lambda r: f"{_day(r):%y%m%d}{_digits(r, 7)}",
        lambda r: f"{r.randrange(10**5, 10**6)}-{_digits(r, 7)}",
        announced=1,
    ),
    "date, time": _of(
        ("회의는 {}에 열립니다.", "작성일 {}", "{} 기준 자료", "계좌 개설일 {}", "전화 상담은 {}부터"),
        lambda r: f"{_day(r):%Y-%m-%d}",
        lambda r: f"{_day(r):%Y.%m.%d}",
        lambda r: f"{_day(r):%Y. %m. %d. %H:%M:%S}",
        lambda r: f"{_day(r):%Y%m%d}",
        lambda r: f"{_day(r):%Y-%m-%d} ~ {_day(r):%Y-%m-%d}",
        lambda r: f"{_day(r):%Y-%m-%dT%H:%M:%S}+09:00",
    ),
    "timestamp": _of(
        ("로그 시각 {}", "timestamp={}", "서버는 {}을 돌려주었다.", "만료 시각(ms): {}"),
        lambda r: str(int(_day(r).timestamp())),
        lambda r: str(int(_day(r).timestamp() * 1000)),
    ),
    "price, amount": _of(
        ("가격은 {}입니다.", "모두 {} 들었다.", "예산 {} 편성", "입금액 {} 확인", "계좌에서 {} 이체"),
        lambda r: f"{r.randrange(10**6, 10**10):,}원",
        lambda r: f"{r.randrange(10**9, 10**11)}원",
        lambda r: f"{r.randrange(10**4, 10**7):,}~{r.randrange(10**7, 10**9):,}원",
        lambda r: f"${r.randrange(10**6, 10**9):,}.{_digits(r, 2)}",
        announced=0.9,
    ),
    "business number": _of(
        ("사업자등록번호 {} 대표 김철수", "사업자번호: {}", "(사업자등록번호: {})"),
        lambda r: f"{r.randrange(101, 900)}-{_digits(r, 2)}-{_digits(r, 5)}",
    ),
    "company register": _of(
        ("법인등록번호 {}", "법인번호: {}", "법인 등록번호는 {}이다."),
        lambda r: f"{r.choice(('110111', '110114', '131111', '200111', '180111'))}-{_digits(r, 7)}",
        announced=1,
    ),
    "tracking number": _of(
        ("운송장 번호 {}로 조회하세요.", "송장번호: {}", "택배 {} 배송 중", "등기번호 {}"),
        lambda r: _digits(r, 12),
        lambda r: _digits(r, 13),
        lambda r: f"{r.randrange(1000, 9999)}-{_digits(r, 4)}-{_digits(r, 4)}",
        lambda r: _digits(r, 10),
        announced=1,
    ),
    "version": _of(
        ("버전 {}으로 올렸다.", "크롬 {}을 설치했습니다.", "v{} 출시", "펌웨어 {} 업데이트", "제{}절을 보라."),
        lambda r: f"{r.randrange(1, 20)}.{r.randrange(30)}.{r.randrange(100)}",
        lambda r: f"{r.randrange(1, 10)}.{r.randrange(10)}.{r.randrange(10)}.{r.randrange(10)}",
        lambda r: f"{r.randrange(80, 140)}.0.{r.randrange(3000, 7000)}.{r.randrange(200)}",
    ),
    "ISBN, barcode": _of(("ISBN {}", "도서번호 {}", "바코드 {}를 찍었다.", "책 뒤의 {}을 보았다."), _isbn, _barcode),
    "coordinates": _of(
        ("좌표는 {}이다.", "위치: {}", "{} 부근에서 발견"),
        lambda r: f"{r.uniform(33, 39):.6f}, {r.uniform(124, 132):.6f}",
        lambda r: f"북위 {r.uniform(33, 39):.7f}도, 동경 {r.uniform(124, 132):.7f}도",
    ),
    "parcel of land, address": _of(
        ("서울시 강남구 역삼동 {}", "{} 일대", "필지 번호 {}", "지번 {}에 짓는다."),
        lambda r: f"{r.randrange(1, 1999)}-{r.randrange(1, 99)}번지",
        lambda r: f"{r.randrange(1500, 1900)}-{r.randrange(1, 9999)}번지",
        lambda r: f"{_digits(r, 10)}-{r.choice('12')}-{_digits(r, 4)}-{_digits(r, 4)}",
    ),
    "number of what no list names": _of(
        (
            "사원번호 {}",
            "출입증 번호는 {}입니다.",
            "논문 번호: {}",
            "차대번호 {}로 확인",
            "기기 번호({})",
            "새 관측기 {}를 달았다.",
        ),
        lambda r: f"{_day(r):%y%m%d}-{_digits(r, 7)}",
        lambda r: f"{r.randrange(11, 27)}-{_digits(r, 2)}-{_digits(r, 6)}-{_digits(r, 2)}",
        lambda r: f"{r.choice('MSRGD')}{_digits(r, 8)}",
        lambda r: f"4{_digits(r, 3)}-{_digits(r, 4)}-{_digits(r, 4)}-{_digits(r, 4)}",
        lambda r: _digits(r, 11),
        announced=1,
    ),
    "years": _of(
        ("조선 시대({})의 기록", "{}년 사이", "재위 {}", "전쟁은 {}년에 이어졌다."),
        lambda r: "{0}{2}{1}".format(*sorted((r.randrange(1500, 1900), r.randrange(1500, 2000))), r.choice("-~–")),
    ),
    "product code": _of(
        ("품번 {}을 주문했다.", "모델명 {}", "부품번호: {}", "제품 코드 {}로 검색", "시리얼 {}"),
        lambda r: f"02-{_digits(r, 4)}-{_digits(r, 4)}",
        lambda r: f"010-{_digits(r, 4)}-{_digits(r, 4)}",
        lambda r: f"{r.choice('MSRGD')}{_digits(r, 8)}",
        lambda r: f"{r.choice('ABXZ')}{r.choice('KTPW')}-{_digits(r, 4)}-{_digits(r, 4)}",
        lambda r: f"{_digits(r, 4)}-{_digits(r, 4)}-{_digits(r, 4)}-{_digits(r, 4)}",
        announced=1,
    ),
    "long number": _of(
        ("결과는 {}이었다.", "소수 {}를 구했다.", "원주율 3.{}", "id={}", "https://shop.example.com/p/{}"),
        lambda r: _digits(r, 16),
        lambda r: _digits(r, 20),
        lambda r: "0." + _digits(r, 12),
    ),
    "private address, MAC": _of(
        ("IP {}로 접속하세요.", "주소는 {}입니다.", "게이트웨이 {}"),
        lambda r: f"192.168.{r.randrange(256)}.{r.randrange(256)}",
        lambda r: f"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}",
        lambda r: "127.0.0.1",
        lambda r: "255.255.255.0",
        lambda r: ":".join(f"{r.randrange(256):02x}" for _ in range(6)),
    ),
    "at sign": _of(
        ("{}을 설치했다.", "파일 {}을 열었다.", "{} 계정을 팔로우"),
        lambda r: f"lodash@{r.randrange(9)}.{r.randrange(30)}.{r.randrange(30)}",
        lambda r: f"icon{r.randrange(90)}@2x.png",
        lambda r: f"@minsu_{_digits(r, 4)}",
        lambda r: f"git@example.com:team/repo{r.randrange(99)}.git",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Sentences of one kind that came out right, and some that did not."""

    right: int
    rows: int
    wrong: tuple[str, ...]


def outcome(make: Maker, is_right: Callable[[str], bool], rows: int, seed: int) -> Outcome:
    """Make `rows` sentences and judge them."""
    rng = random.Random(seed)
    sentences = [make(rng) for _ in range(rows)]
    wrong = [sentence for sentence in sentences if not is_right(sentence)]
    return Outcome(rows - len(wrong), rows, tuple(wrong[:5]))


def is_masked(sentence: str) -> bool:
    """Something was masked, and no long number, address or code is left beside the dates of the sentences around it."""
    rest = mask(sentence)
    leftover = rest.replace("2024년 3월 5일", "")
    return rest != sentence and "@" not in leftover and sum(c.isdecimal() for c in leftover) <= 3


def is_untouched(sentence: str) -> bool:
    """Nothing was masked."""
    return mask(sentence) == sentence


def planted(rows: int, seed: int = 7) -> dict[str, Outcome]:
    """By kind."""
    return {name: outcome(make, is_masked, rows, seed) for name, make in PLANTED.items()}


def look_alikes(rows: int, seed: int = 11) -> dict[str, Outcome]:
    """By kind."""
    return {name: outcome(make, is_untouched, rows, seed) for name, make in LOOK_ALIKES.items()}


def share(outcomes: dict[str, Outcome]) -> float:
    """Right ones of all."""
    return sum(o.right for o in outcomes.values()) / sum(o.rows for o in outcomes.values())


_PARTICLES = ("은", "는", "이", "가", "을", "를", "에", "에서", "으로", "와", "의", "도", "만", "까지")
_ENDINGS = ("했다.", "합니다.", "하였다.", "됩니다.", "이다.", "했습니다.", "한다.", "하지 않는다.")
_SYLLABLES = (
    "가고구국금기나남노다대도동라리마면모무문미민바방보부비사상서선성소수시신아안여연"
    "영예오요용우운원유이인일자장재전정제조주지진"
)


def documents(count: int, seed: int = 3) -> list[str]:
    """Web-like pages of 20 to 60 sentences of made-up Korean words, as frequent as Zipf says; some hold tags, links,
    laughter, numbers and personal data."""
    rng = random.Random(seed)
    stems = ["".join(rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2, 2, 3)))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(10, 20_010)))
    makers = [*PLANTED.values(), *LOOK_ALIKES.values()]
    pages = []
    for _ in range(count):
        sentences = []
        for _ in range(rng.randrange(20, 60)):
            chosen = rng.choices(stems, cum_weights=weights, k=rng.randrange(4, 14))
            sentences.append(" ".join(stem + rng.choice(_PARTICLES) for stem in chosen) + rng.choice(_ENDINGS))
        sentences += [rng.choice(makers)(rng) for _ in range(rng.randrange(3))]
        sentences += rng.choices(
            ("ㅋㅋㅋㅋㅋ 재밌다", "<b>굵게</b>&nbsp;쓴 글", "[여기](https://example.com)를  보라", "3,500원"), k=2
        )
        rng.shuffle(sentences)
        pages.append("".join(sentence + rng.choice((" ", " ", "\n", "\n\n")) for sentence in sentences))
    return pages


def throughput(count: int = 2000) -> tuple[float, int]:
    """Megabytes of UTF-8 per second on one core, best of three, and how many of the documents were kept."""
    pages = documents(count)
    size = sum(len(page.encode()) for page in pages)
    cleaner = Cleaner(CleaningSettings())
    best, kept = float("inf"), 0
    for _ in range(3):
        begun = time.process_time()
        kept = sum(hasattr(cleaner(page), "text") for page in pages)
        best = min(best, time.process_time() - begun)
    return size / best / 1e6, kept


def main() -> None:
    """Print the tables. Exit code 1 if a bar is missed."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    met = True
    for title, bar, outcomes in (("masked", 0.99, planted(rows)), ("left alone", 0.98, look_alikes(rows))):
        print(f"\n| kind | {title} | rows |\n|---|---|---|")
        for name, result in outcomes.items():
            print(f"| {name} | {result.right / result.rows:.2%} | {result.rows} |")
            for sentence in result.wrong:
                print(f"    wrong: {sentence}", file=sys.stderr)
        print(f"| **all** (bar {bar:.0%}) | **{share(outcomes):.2%}** | {rows * len(outcomes)} |")
        met &= share(outcomes) >= bar
    speed, kept = throughput()
    print(f"\nall of cleaning: {speed:.1f} MB/s per core ({kept} of 2000 documents kept)")
    sys.exit(not met)


if __name__ == "__main__":
    main()
