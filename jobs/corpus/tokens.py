"""What Korean costs under a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ROWS_AT_ONCE = 200


@dataclass(frozen=True)
class Fertility:
    """Tokens, words (between white space), Hangul syllables and UTF-8 bytes of each sampled row that has syllables."""

    tokens: tuple[int, ...]
    words: tuple[int, ...]
    syllables: tuple[int, ...]
    bytes: tuple[int, ...]

    def figures(self) -> dict[str, float]:
        """Ratios over all rows together; none without rows."""
        if not self.tokens:
            return {}
        tokens = sum(self.tokens)
        return {
            "tokens_per_word": tokens / sum(self.words),
            "tokens_per_syllable": tokens / sum(self.syllables),
            "bytes_per_token": sum(self.bytes) / tokens,
        }


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> Fertility:
    """Tokenise the texts that hold Hangul, without special tokens."""
    rows: list[tuple[int, int, int, int]] = []
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        batch = texts[start : start + _ROWS_AT_ONCE]
        for text, encoded in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            syllables = sum("가" <= c <= "힣" for c in text)
            if syllables:
                rows.append((len(encoded), len(text.split()), syllables, len(text.encode())))
    tokens_, words, syllables_, sizes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Fertility(tokens_, words, syllables_, sizes)
