"""One row of training data, whatever file and format it came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns that end with the assistant's, or plain text (then `messages` is empty).

    All text is in Unicode's composed form (NFC): decomposed Hangul, which macOS writes, costs 2.5 times the tokens.
    `origin` says where the row was read: `file:line`, or `file row N` where a file has no lines.
    """

    messages: tuple[Message, ...]
    text: str | None
    origin: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content alone, in hexadecimal; rows with the same content share it wherever they came from."""
        content = self.text if self.text is not None else [[m.role, m.content] for m in self.messages]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
