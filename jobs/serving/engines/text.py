"""Tokens to text as they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet."""
_LONGEST_WAIT = 8
"""Tokens after which bytes are broken for sure: a character has four bytes at most."""


class Detokenizer:
    """Text of one answer, token by token. A character whose bytes are spread over tokens comes out whole.

    Tokens are decoded together with those of the last piece, because a decoder may write a token differently at the
    beginning of a text (SentencePiece's leading blank).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        """From the beginning of the last piece that ended with a whole character."""
        self._whole = 0
        """Length of that piece, in tokens."""
        self._given = 0
        """Characters of `_tokens` that were given out."""
        self._waited = 0
        """Tokens since something was given out."""

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete.

        What stays incomplete until the end never comes out: it is no text. Bytes that can no longer become a character
        come out as U+FFFD, as the tokenizer decodes them.
        """
        self._tokens.append(token)
        text = self._decode(self._tokens)
        self._waited += 1
        whole = text if self._waited > _LONGEST_WAIT else text.rstrip(_BROKEN)
        new = whole[self._given :]
        if new:
            self._given, self._waited = len(whole), 0
        if whole == text and new:
            del self._tokens[: self._whole]
            self._whole = len(self._tokens)
            self._given = len(self._decode(self._tokens))
        return new


class StopFilter:
    """Holds text back for as long as it may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False
        """Whether a stop string came; nothing is given out after it."""

    def push(self, text: str) -> str:
        """What of the text so far can be given out. Sets `hit` at the first stop string and gives what stood before."""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """What was held back, once it is clear that nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
