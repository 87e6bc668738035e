"""All steps together, on texts that nobody would write."""

import pickle
import random
import unicodedata

import pytest
from pydantic import ValidationError

from jobs.corpus.cleaning_settings import CleaningSettings, QualitySettings
from jobs.corpus.steps import Cleaned, Cleaner, Dropped, mask
from tests.bench import pii

LENIENT = CleaningSettings(
    quality=QualitySettings(
        min_characters=0,
        min_mean_word_length=0,
        max_mean_word_length=1e9,
        max_symbols_per_word=1e9,
        max_bullet_lines=1,
        max_ellipsis_lines=1,
        min_hangul=0,
        max_hanja=1,
        max_latin=1,
        max_broken=1,
        max_repeated_lines=1,
        max_repeated_line_characters=1,
        repeated_word_runs=False,
    )
)
PIECES = [
    *"<>&;[](){}|`'\"*#=!-_@.:/\\ \t\n\r",
    *"가힣ㄱㅋㅏ각ᄊᆞﾡ０Ａ＜＆＞天x0123456789…😀",
    *"\u200b\u200d\ufeff\ufe0f\U0001f468\U000e0061\u0301\u034f\x00\x85\u2028\ud800\udfff\ufffd",
    *(
        "&lt;",
        "&amp;",
        "&#38;",
        "<b>",
        "</p>",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "```\n",
        "[[",
        "]]",
        "'''",
        "{{",
        "}}",
    ),
    *(
        "](http://a)",
        "[x]: http://a",
        "ㅋㅋㅋ",
        "010-1234-5678",
        "900101-1234568",
        "계좌 110-123-456789",
        "a@b.kr",
        "8.8.4.4",
    ),
    *(
        "주민번호",
        "주문번호 ",
        "문의",
        "{|\n",
        "|}\n",
        "<ref>",
        "</ref>",
        "== 가 ==\n",
        "[전화번호]",
        "[[전화번호]]",
        "국민 ",
    ),
]


def odd_texts(count: int) -> list[str]:
    rng = random.Random(5)
    return ["".join(rng.choices(PIECES, k=rng.randrange(60))) for _ in range(count)]


def test_never_raises_and_is_idempotent() -> None:
    cleaner = Cleaner(LENIENT)
    kept = 0
    for text in odd_texts(1_500):
        cleaned = cleaner(text)
        if isinstance(cleaned, Dropped):
            assert cleaned.rule in cleaner.rules
            continue
        kept += 1
        assert cleaner(cleaned.text) == Cleaned(cleaned.text, {}), repr(text)
        cleaned.text.encode()
    assert kept > 1_000


def test_decomposed_text_comes_out_as_composed_text_does() -> None:
    cleaner = Cleaner(LENIENT)
    for text in [*pii.documents(10), *odd_texts(600)]:
        decomposed, composed = (cleaner(unicodedata.normalize(form, text)) for form in ("NFD", "NFC"))
        assert decomposed[:2] == composed[:2], repr(text)


def test_defaults_keep_documents_and_clean_them_once() -> None:
    cleaner = Cleaner(CleaningSettings())
    for page in pii.documents(20):
        cleaned = cleaner(page)
        assert isinstance(cleaned, Cleaned)
        assert cleaner(cleaned.text) == Cleaned(cleaned.text, {})


def test_pickled_cleaner_does_the_same() -> None:
    cleaner = Cleaner(CleaningSettings(max_repeated_jamo=3))
    again = pickle.loads(pickle.dumps(cleaner))
    assert [again(page) for page in pii.documents(10)] == [cleaner(page) for page in pii.documents(10)]


def test_what_was_done_is_counted() -> None:
    cleaned = Cleaner(LENIENT)("<p>전화 010-1234-5678,  010-9876-5432</p> ㅋㅋㅋㅋ a@b.kr")
    assert cleaned == (
        "전화 [전화번호], [전화번호]\nㅋㅋ [이메일]",
        {"phone": 2, "email": 1},
        ("html", "whitespace", "jamo"),
    )


def test_steps_can_be_left_out() -> None:
    settings = LENIENT.model_copy(update={"html": False, "max_repeated_jamo": 0, "mask": ("email",)})
    cleaned = Cleaner(settings)("<b>ㅋㅋㅋㅋ</b> 010-1234-5678 a@b.kr")
    assert cleaned == ("<b>ㅋㅋㅋㅋ</b> 010-1234-5678 [이메일]", {"email": 1}, ())


@pytest.mark.parametrize(("levels", "dropped"), [(3, False), (20, True)])
def test_markup_inside_markup_without_end_is_dropped(levels: int, dropped: bool) -> None:
    outcome = Cleaner(LENIENT)("<b" * levels + ">" * levels)
    assert isinstance(outcome, Dropped) == dropped
    assert outcome[0] == ("unsettled_markup" if dropped else "")


def test_conversations_are_judged_as_a_whole() -> None:
    cleaner = Cleaner(CleaningSettings())
    turns = ["파이썬에서 목록을 뒤집는 법을 알려 주세요.", "```python\nitems[::-1]\n```"]
    assert isinstance(cleaner(turns[1]), Dropped)
    cleaned = cleaner.conversation(turns)
    assert isinstance(cleaned, list)
    assert [turn.text for turn in cleaned] == turns
    assert isinstance(
        cleaner.conversation(["영어로 옮겨 주세요: 비가 온다.", "It is raining, and it will not stop soon."]), list
    )
    english = cleaner.conversation(["What is rain?", "Water that falls from clouds."])
    assert isinstance(english, Dropped)
    assert english.rule == "hangul_share"
    empty = cleaner.conversation(["질문이 있어요", "<p></p>"])
    assert isinstance(empty, Dropped)
    assert empty.rule == "too_short"


def test_mask_is_for_what_people_see_whatever_the_settings() -> None:
    assert mask("메일 a@b.kr\ud800") == "메일 [이메일]"


def test_bounds_that_nothing_can_meet_are_refused() -> None:
    with pytest.raises(ValidationError, match="no text could pass"):
        QualitySettings(min_characters=10, max_characters=5)
