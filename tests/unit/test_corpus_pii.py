"""Masking of personal data: the bars on generated numbers, and single cases that mark the line."""

import pytest

from jobs.corpus.steps import mask
from tests.bench import pii


def test_planted_numbers_are_masked() -> None:
    outcomes = pii.planted(200, seed=101)
    assert pii.share(outcomes) >= 0.99, outcomes
    assert min(outcome.right / outcome.rows for outcome in outcomes.values()) >= 0.96, outcomes


def test_look_alikes_are_left_alone() -> None:
    outcomes = pii.look_alikes(200, seed=102)
    assert pii.share(outcomes) >= 0.98, outcomes
    undecided = outcomes.pop(
        "number of what no list names"
    )  # some are labelled by nothing, and shaped like the real one
    assert undecided.right / undecided.rows >= 0.75, undecided
    assert min(outcome.right / outcome.rows for outcome in outcomes.values()) >= 0.96, outcomes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("내 번호 010-1234-5678로 전화해", "내 번호 [전화번호]로 전화해"),
        ("01012345678이에요", "[전화번호]이에요"),
        ("+82 10-1234-5678", "[전화번호]"),
        ("+82(0)10-1234-5678", "[전화번호]"),
        ("예약 02-345-6789", "예약 [전화번호]"),
        ("02)345-6789, (031) 345-6789", "[전화번호], [전화번호]"),
        ("안심번호 0505-123-4567 / 050-7123-4567", "안심번호 [전화번호] / [전화번호]"),
        ("고객센터 1588-1234", "고객센터 [전화번호]"),
        ("2024-05-12 010-1234-5678 13:20", "2024-05-12 [전화번호] 13:20"),
        ("900101-1234567", "[주민등록번호]"),  # wrong check digit: issued since October 2020, or nearly
        ("주민번호 9001011234567", "주민번호 [주민등록번호]"),
        ("900101-5234567", "[외국인등록번호]"),
        ("면허 11-99-123456-01", "면허 [운전면허번호]"),
        ("서울 99-123456-01", "[운전면허번호]"),
        ("여권 M123A4567", "여권 [여권번호]"),
        ("4111 1111 1111 1111", "[카드번호]"),
        ("국민 123456-01-123456 홍길동", "국민 [계좌번호] 홍길동"),
        ("메일은hong@naver.com입니다", "메일은[이메일]입니다"),
        ("서버 2001:220:88db:5e88::1 꺼짐", "서버 [IP주소] 꺼짐"),
    ],
)
def test_masked(before: str, after: str) -> None:
    assert mask(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "901301-1234567",  # month 13
        "900230-1234567",  # 30 February
        "주문번호 900101-1234567",
        "법인등록번호 110111-1234567",
        "바코드 8801062123458",
        "1612137600000",  # milliseconds, and a date of birth in 2016
        "4111-1111-1111-1112",  # Luhn
        "7111-1111-1111-1111",
        "99-99-123456-01",  # no such region
        "M20240512",
        "국민은행 2024-05-12",
        "110-123-456789",  # nothing says that this is an account
        "1592-1598년",
        "품번 02-345-6789",
        "https://example.com/p/010-1234-5678",
        "3.141592653589793",
        "192.168.0.1",
        "버전 20.11.3.4",
        "999.1.1.1",
        "12:34:56",
        "std::vector",
        "icon@2x.png",
        "git@example.com:team/repo.git",
    ],
)
def test_left_alone(text: str) -> None:
    assert mask(text) == text
