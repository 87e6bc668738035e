"""Gemma's tokenizer out of a GGUF file, on a vocabulary small enough to check by hand."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from gguf import GGUFWriter
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from jobs.gguf_tokenizer import Pieces, PieceType, bpe_tokenizer, load_tokenizer

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>"]
USER_DEFINED = ["\n", "\n\n", "  ", "   ", "<b>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Best first. 한국 comes before 대한, so 대한국 is 대+한국 although 대한 stands to its left.
NORMAL = ["한국", "대한", "국어", "▁한국", "민국", "대한민국", "▁대", "▁대한", "▁국", "어어", "▁국어", "▁"]
CHARACTERS = list("대한민국어")

TEXTS = [*CONTROL, *USER_DEFINED, *BYTES, *NORMAL, *CHARACTERS]
PIECES = Pieces(
    texts=TEXTS,
    # As in Gemma's file: merges are ranked 0, -1, -2, …, and whatever is not merged carries a number without meaning.
    scores=[
        *[-1000.0] * len(CONTROL + USER_DEFINED),
        *[0.0] * len(BYTES),
        *(-float(rank) for rank in range(len(NORMAL + CHARACTERS))),
    ],
    types=[
        *[int(PieceType.CONTROL)] * len(CONTROL),
        *[int(PieceType.USER_DEFINED)] * len(USER_DEFINED),
        *[int(PieceType.BYTE)] * len(BYTES),
        *[int(PieceType.NORMAL)] * len(NORMAL + CHARACTERS),
    ],
)


def split(text: str) -> list[str]:
    return bpe_tokenizer(PIECES, "<unk>", None).encode(text).tokens


def sentencepiece_bpe(text: str) -> list[str]:
    """What SentencePiece's BPE defines, spelt out: cut out fixed pieces, then join the best pair until none is left."""
    scores = dict(zip(NORMAL + CHARACTERS, range(0, -100, -1), strict=False))
    found: list[str] = []
    symbols: list[str] = []

    def flush() -> None:
        while True:
            pairs = [(scores[a + b], -i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
            if not pairs:
                break
            at = -max(pairs)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        for symbol in symbols:
            found.extend([symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()])
        symbols.clear()

    at = 0
    while at < len(text):
        fixed = max((p for p in CONTROL + USER_DEFINED if text.startswith(p, at)), key=len, default=None)
        if fixed:
            flush()
            found.append(fixed)
        else:
            symbols.append(text[at].replace(" ", "▁"))
        at += len(fixed or "x")
    flush()
    return found


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("대한국", ["대", "한국"]),
        ("대한민국", ["대한민국"]),
        ("한국어", ["한국", "어"]),
        (" 국어", ["▁국어"]),
        ("뷁", ["<0xEB>", "<0xB7>", "<0x81>"]),
        ("    국", ["   ", "▁국"]),
        ("국\n\n\n국", ["국", "\n\n", "\n", "국"]),
        ("국<b>어<end_of_turn>", ["국", "<b>", "어", "<end_of_turn>"]),
    ],
)
def test_pieces_are_joined_in_the_order_of_their_scores(text: str, tokens: list[str]) -> None:
    assert split(text) == tokens


def test_agrees_with_the_definition_on_random_text() -> None:
    chance = random.Random(7)
    alphabet = ["대", "한", "민", "국", "어", " ", " ", "  ", "\n", "뷁", "<b>", "x"]
    tokenizer = bpe_tokenizer(PIECES, "<unk>", None)
    for _ in range(500):
        text = "".join(chance.choices(alphabet, k=chance.randint(1, 24)))
        encoded = tokenizer.encode(text)
        assert encoded.tokens == sentencepiece_bpe(text), text
        assert tokenizer.decode(encoded.ids) == text


def write_gguf(path: Path, *, template: str | None = None) -> Path:
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(128)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(PIECES.texts)
    writer.add_token_scores(PIECES.scores)
    writer.add_token_types(PIECES.types)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    if template:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_is_gemmas(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("대한국 한국어<end_of_turn>")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "대", "한국", "▁한국", "어", "<end_of_turn>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "대한국 한국어"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert len(tokenizer) == len(TEXTS)
    assert tokenizer.model_max_length == 128


def test_a_gguf_file_gives_the_same_tokenizer_before_and_after_saving(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_gguf(tmp_path / "tiny.gguf"))
    assert_is_gemmas(tokenizer)
    assert tokenizer.chat_template is None  # the base model's: see load_tokenizer
    tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "gemma3_text"}')
    assert_is_gemmas(AutoTokenizer.from_pretrained(tmp_path / "saved"))


def test_the_chat_template_of_the_file_is_kept(tmp_path: Path) -> None:
    assert (
        load_tokenizer(write_gguf(tmp_path / "tiny.gguf", template="{{ bos_token }}")).chat_template
        == "{{ bos_token }}"
    )
