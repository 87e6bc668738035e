"""Tokens to text: characters come out whole, stop strings not at all."""

import itertools
import random

import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from jobs.serving.engines.text import Detokenizer, StopFilter

TEXTS = [
    "깊은 밤 별빛 아래 홀로 걷다",
    "훈민정음 ㄱㄴㄷ 힣뷁 👩‍👩‍👧‍👦 🇰🇷",
    "섞인 글 쓴다 é\n\n\tñ",
    "�가",
    " 앞뒤 빈칸 ",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text_and_no_piece_ends_in_half_a_character(tokenizer, text):
    tokens = tokenizer(text)["input_ids"]
    detokenizer = Detokenizer(tokenizer.decode)
    pieces = [detokenizer.push(token) for token in tokens]
    assert "".join(pieces) == text
    assert len(tokens) > len(text), "the tokenizer must cut characters apart, or this shows nothing"
    whole = [piece for piece in pieces if piece]
    assert all(text.startswith("".join(whole[:count])) for count in range(len(whole)))


def test_a_character_that_is_cut_off_by_the_end_never_comes_out(tokenizer):
    tokens = tokenizer("서울 뷁")["input_ids"]
    detokenizer = Detokenizer(tokenizer.decode)
    assert "".join(detokenizer.push(token) for token in tokens[:-1]) == "서울 "


def test_bytes_that_are_no_character_do_not_hold_up_what_follows(tokenizer):
    lead = tokenizer("뷁")["input_ids"][0]
    tokens = [lead] * 30 + tokenizer("끝")["input_ids"]
    detokenizer = Detokenizer(tokenizer.decode)
    assert "".join(detokenizer.push(token) for token in tokens).endswith("끝")


@pytest.mark.parametrize("stops", [["가나"], ["나다", "다라"], ["끝."], ["라라마"], ["가", "가나다라"]])
def test_text_up_to_the_first_stop_string_however_it_is_cut(stops):
    text = "이 말은 가가나다라라라마 하고 끝."
    expected = text[: min(at for stop in stops if (at := text.find(stop)) >= 0)]
    for cuts in itertools.combinations(range(1, len(text)), 2):
        parts = [text[a:b] for a, b in itertools.pairwise((0, *cuts, len(text)))]
        filter_ = StopFilter(stops)
        given = ""
        for part in parts:
            given += filter_.push(part)
            assert expected.startswith(given), "nothing of a stop string may be given out"
            if filter_.hit:
                break
        assert (given, filter_.hit) == (expected, True)


def test_what_looked_like_a_stop_string_comes_out_at_the_end():
    filter_ = StopFilter(["끝났다"])
    given = filter_.push("이제 끝났")
    assert (given, filter_.rest(), filter_.hit) == ("이제 ", "끝났", False)


def test_text_without_a_stop_string_is_not_lost():
    rng = random.Random(5)
    text = "".join(rng.choice("가나다") for _ in range(400)).replace("가나다라", "")
    filter_ = StopFilter(["가나다라", "다다다다다다다다"])
    given = "".join(filter_.push(character) for character in text) + filter_.rest()
    assert given == text
