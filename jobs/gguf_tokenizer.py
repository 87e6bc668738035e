"""The tokenizer inside a GGUF weights file, as a Hugging Face tokenizer.

transformers 5.17 reads most of them correctly, but makes a Unigram tokenizer of Gemma's (`GGUFGemmaConverter`). Gemma's
vocabulary is byte-pair encoding made with SentencePiece, and its scores are not log probabilities but the order of the
merges: 0, -1, -2, … With them Unigram splits 수도는 into 수+도는 instead of 수도+는, and the model reads Korean worse
(measured: perplexity 636 instead of 96 on "대한민국의 수도는 서울이다.", 21.6 instead of 17.9 on article 1 of the
constitution). So the merges are rebuilt here from pieces and scores, as llama.cpp does when it runs such a file
(`llm_tokenizer_spm`: of all neighbours that together are a piece, the best score is joined first) and as transformers
does with the original SentencePiece file (`generate_merges`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_READ_AS_UNIGRAM = {"gemma2", "gemma3"}
"""Values of `general.architecture` whose SentencePiece BPE vocabulary transformers takes for Unigram."""


class PieceType(IntEnum):
    """Values of `tokenizer.ggml.token_type` in Gemma's files (GGUF specification, SentencePiece's own numbers)."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    BYTE = 6


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece BPE vocabulary as GGUF stores it: text, score and type of each piece, in the order of ids.

    Spaces are written `▁`, except in user-defined pieces, where they are spaces.
    """

    texts: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]


def load_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with its special tokens, its BOS habit and, if the file has one, its chat template.

    A base model's file has none. Gemma's own template would not suit it either: the base model never saw
    `<start_of_turn>` and `<end_of_turn>` (the embedding of the latter is that of the unused tokens, cosine 0.99), and
    an adapter does not train embeddings. Such a tokenizer gets the plain template of `ensure_chat_template`, whose
    turns end with `<eos>`, a token that the model knows.
    """
    from transformers import AutoTokenizer
    from transformers.integrations.gguf.reader import read_gguf_metadata

    # The reader that `from_pretrained` uses for most files takes 20 s to walk 262,144 pieces; this one takes 1 s.
    metadata, _ = read_gguf_metadata(str(gguf), ("tokenizer.ggml.tokens",))
    if metadata["general.architecture"] in _READ_AS_UNIGRAM and metadata["tokenizer.ggml.model"] == "llama":
        return _gemma_tokenizer(metadata)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # What the file's metadata say, but transformers loses on the way to the tokenizer.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(metadata["tokenizer.ggml.eos_token_id"])
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _gemma_tokenizer(metadata: dict[str, Any]) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    pieces = Pieces(
        texts=metadata["tokenizer.ggml.tokens"],
        scores=metadata["tokenizer.ggml.scores"],
        types=metadata["tokenizer.ggml.token_type"],
    )
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{ours}_token": pieces.texts[metadata[f"tokenizer.ggml.{its}_token_id"]] for ours, its in names.items()}
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", True)  # Gemma's own habit
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe_tokenizer(pieces, special["unk_token"], special["bos_token"] if adds_bos else None),
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata[f"{metadata['general.architecture']}.context_length"],
        **special,
    )


def bpe_tokenizer(pieces: Pieces, unk_token: str, leading_token: str | None) -> Tokenizer:
    """A BPE tokenizer that splits text as SentencePiece does with these pieces; `leading_token` begins every text.

    Only normal pieces come from merging. Control and user-defined ones (turn marks, HTML tags, runs of spaces or
    newlines) are cut out of the text beforehand, the longest first. What no piece spells becomes its UTF-8 bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers.convert_slow_tokenizer import generate_merges

    vocabulary = {text: index for index, text in enumerate(pieces.texts)}
    scores = {
        text: score
        for text, score, kind in zip(pieces.texts, pieces.scores, pieces.types, strict=True)
        if kind == PieceType.NORMAL
    }
    merges = generate_merges(vocabulary, scores, skip_tokens=vocabulary.keys() - scores.keys())
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unk_token, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False, special=kind == PieceType.CONTROL)
            for text, kind in zip(pieces.texts, pieces.types, strict=True)
            if kind in (PieceType.CONTROL, PieceType.USER_DEFINED)
        ]
    )
    if leading_token is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{leading_token} $A", special_tokens=[(leading_token, vocabulary[leading_token])]
        )
    return tokenizer
