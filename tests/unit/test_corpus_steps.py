"""The text steps of corpus preparation, each by itself."""

import unicodedata

import pytest

from jobs.corpus.cleaning_settings import QualitySettings
from jobs.corpus.steps import characters, layout, markup, quality, repetition

FAMILY = "👨\u200d👩\u200d👧"
ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("한\u200b글\ufeff과 \u00ad말", "한글과 말"),
        ("줄\r\n바꿈\r또\x0b또\u2028끝", "줄\n바꿈\n또\n또\n끝"),
        ("벨\x07과 널\x00과\t탭", "벨과 널과\t탭"),
        (f"가족 {FAMILY} 잉글랜드 {ENGLAND} 하트 ❤️", f"가족 {FAMILY} 잉글랜드 {ENGLAND} 하트 ❤️"),
        ("한\u200d글 a\u200db", "한글 ab"),
        ("숨은\U000e0068\U000e0069 글", "숨은 글"),
        ("오른쪽\u202e에서 왼쪽", "오른쪽에서 왼쪽"),
    ],
)
def test_invisible_characters_go_except_in_emoji(before: str, after: str) -> None:
    assert characters.without_invisible(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (unicodedata.normalize("NFD", "햇살 좋은 날 café"), "햇살 좋은 날 café"),
        ("ＡＢＣ１２３（가）～", "ABC123(가)~"),
        ("\uffa1\uffa4\uffa9\uffc2\uffc3", "ㄱㄴㄹㅏㅐ"),
        ("ㅋㅋ x² ① ㎏ ㈜", "ㅋㅋ x² ① ㎏ ㈜"),  # what NFKC would spoil
        ("가\u3000나\xa0다\u3164라", "가 나 다 라"),
        ("￦1,000", "₩1,000"),
        ("나랏말ᄊᆞ미", "나랏말ᄊᆞ미"),  # Old Hangul
        ("樂\uf914", "樂樂"),
    ],
)
def test_characters_take_one_form(before: str, after: str) -> None:
    assert characters.composed(before) == after


def test_lone_surrogates_go() -> None:
    assert characters.encodable("가\ud800나\udfff") == "가나"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<p>첫 <b>문단</b></p><br/>끝", "\n첫 문단\n\n끝"),
        ("A&amp;amp;T &lt; 5&nbsp;&#44032; &없음;", "A&T < 5\xa0가 &없음;"),
        ("앞<!-- 메모 > -->뒤<script src='x'>if (a<b) {}</script>.", "앞뒤."),
        ("x < y, List<String>, <홍길동전> a<b", "x < y, List<String>, <홍길동전> a<b"),
        ("태그 `<div>`는\n```html\n<p>&amp;</p>\n```\n<i>남고</i>", "태그 `<div>`는\n```html\n<p>&amp;</p>\n```\n남고"),
        ("주소?a=1&copy=2", "주소?a=1&copy=2"),
        ("<!-- 닫히지 않음", "<!-- 닫히지 않음"),
    ],
)
def test_html_leftovers_go_and_code_stays(before: str, after: str) -> None:
    assert markup.without_html(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("'''세종'''은 [[조선]]의 [[왕|임금]]이다.<ref>실록</ref>{{출처|{{날짜}}}}", "세종은 조선의 임금이다."),
        ("[[파일:a.jpg|섬네일]]'''가''' [[분류:왕]]\n== 생애 ==\n글", "가 \n생애\n글"),
        ("[[가]]\n{| class=x\n| 표\n|}\n끝", "가\n\n끝"),
        ("행렬 [[1, 2], [3, 4]]와 {{ name }}", "행렬 [[1, 2], [3, 4]]와 {{ name }}"),
        ("[[전화번호]]", "[[전화번호]]"),  # a masked number between brackets
    ],
)
def test_wiki_markup_leaves_its_words(before: str, after: str) -> None:
    assert markup.without_wiki(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[공지](https://example.com/a "제목")와 ![그림](/b.png)', "공지와 그림"),
        ("본문\n[1]: https://example.com 출처\n끝", "본문\n\n끝"),
        ("## 제목\n- **굵게** `[a](/b)`\n| 표 |", "## 제목\n- **굵게** `[a](/b)`\n| 표 |"),
        ("배열[i](값)을", "배열[i](값)을"),
        ("[전화번호](https://example.com)", "[전화번호]"),
    ],
)
def test_markdown_links_leave_their_words(before: str, after: str) -> None:
    assert markup.without_links(before) == after


def test_html_document_becomes_paragraphs() -> None:
    document = """<!doctype html><html><head><title>창</title><style>p{}</style></head><body>
      <nav>메뉴</nav><h1>제목</h1><p>첫
      <b>문단</b>입니다.<br>둘째 줄</p><ul><li>하나<li>둘</ul>
      <pre>def f():
    return 1</pre><table><tr><td>가<td>나</table><script>x()</script></body></html>"""
    assert markup.html_to_text(document) == (
        "제목\n\n첫 문단입니다.\n둘째 줄\n\n- 하나\n- 둘\n\n```\ndef f():\n    return 1\n```\n\n가 나"
    )
    assert markup.html_to_text("") == ""
    assert markup.html_to_text("<p>가\ud800나\x00\x1c") == "가나"


def test_deep_and_unclosed_html_takes_linear_time() -> None:
    assert markup.without_html("<!--" * 100_000 + "-->") == ""
    assert "끝" in markup.html_to_text("<div>" * 2_000 + "끝")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  가  나\t다 \n \n\n\n 라  ", "가 나 다\n\n라"),
        ("글\n```\n  들여  쓴\n\n\n\n코드\n```\n끝   말", "글\n```\n  들여  쓴\n\n\n\n코드\n```\n끝 말"),
    ],
)
def test_spaces_are_single_except_in_code(before: str, after: str) -> None:
    assert layout.single_spaced(before) == after


@pytest.mark.parametrize(
    ("before", "after"), [("ㅋㅋㅋㅋㅋ ㅠㅠㅠ", "ㅋㅋ ㅠㅠ"), ("ㅋㅋ 1000 좋아아아아", "ㅋㅋ 1000 좋아아아아")]
)
def test_only_lone_jamo_are_squeezed(before: str, after: str) -> None:
    assert layout.squeezed(before, longest=2) == after


LINE = "봄이 오면 마을 사람들은 강가에 모여 지난겨울 이야기를 나누고 새로 심을 나무를 고른다"
WORDS = LINE.split()
ENDLESS = "글이 이어지다가 끝을 맺지 않고 흐려진다"
SOUND = "\n".join(
    " ".join(f"{word}{line}" if i % 5 == line % 5 else word for i, word in enumerate(WORDS[line:])) for line in range(8)
)
ENGLISH = "The quick brown fox jumps over the lazy dog near the river bank today"
CLASSIC = "天地玄黃 宇宙洪荒 日月盈昃 辰宿列張 寒來暑往 秋收冬藏"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (SOUND, None),
        ("짧다", "too_short"),
        ("가나다라 " * 30_000, "too_long"),
        (f"{ENGLISH} and sleeps. 끝입니다.", "hangul_share"),
        (f"{ENGLISH} 이 문장에는 모든 글자가 들어 있어서 쓸모가 많다", "latin_share"),
        (f"{CLASSIC} 하늘은 검고 땅은 누르며 우주는 넓고 거칠다고 옛글에 적혀 있다", "hanja_share"),
        (SOUND.replace("0", "\ufffd"), "broken_encoding"),
        ("가 나 다 라 마 바 사 아 자 차 카 타 파 하 " * 4, "mean_word_length"),
        ("띄어쓰기가없는아주긴글은읽을수가없으며" * 4, "mean_word_length"),
        (SOUND.replace(" ", " #"), "symbols"),
        ("\n".join(f"- {word} 살펴보기 {i}번째" for i, word in enumerate(WORDS)), "bullets"),
        ("\n".join(f"{word} {i} {ENDLESS}" for i, word in enumerate(WORDS)), "repeated_word_runs"),
        ("\n".join(" ".join(WORDS[i:] + WORDS[:i]) + f"{i}…" for i in range(8)), "ellipses"),
        ("\n".join(["같은 줄이 자꾸 되풀이되어 나온다"] * 6 + WORDS), "repeated_lines"),
        (" ".join(["오늘의 특가 상품을 지금 바로 만나 보세요"] * 12), "repeated_word_runs"),
    ],
)
def test_quality_rules(text: str, rule: str | None) -> None:
    verdict = quality.judge(text, QualitySettings())
    assert (verdict[0] if verdict else None) == rule


def test_fenced_code_does_not_count_as_language() -> None:
    code = "```python\n" + "\n".join(f"value_{i} = compute(value_{i - 1})" for i in range(40)) + "\n```"
    assert quality.judge(f"{SOUND}\n{code}", QualitySettings()) is None


def _gopher_repeated_share(words: list[str], size: int) -> float:
    """The definition, word by word."""
    seen: set[tuple[str, ...]] = set()
    held = position = 0
    while position <= len(words) - size:
        run = tuple(words[position : position + size])
        if run in seen:
            held += sum(map(len, run))
            position += size
        else:
            seen.add(run)
            position += 1
    return held / sum(map(len, words))


@pytest.mark.parametrize("repeats", [1, 2, 3, 5, 8])
def test_repeated_runs_agree_with_the_definition(repeats: int) -> None:
    words = [f"낱말{i % (120 - 7 * repeats)}" for i in range(100)] + [f"다른{i}" for i in range(60)] * (
        1 + repeats // 5
    )
    bounds = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    expected = any(_gopher_repeated_share(words, size) > bound for size, bound in bounds.items())
    assert (repetition.repeated_runs(words) is not None) == expected
