"""What an engine is asked, and the pieces that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; meaning and bounds as in `jobs.serving.protocol.Request`."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Task:
    """A prompt to continue."""

    model: str
    """Name of the base or of an adapter."""
    prompt: tuple[int, ...]
    """Token ids; at least one."""
    max_tokens: int
    """Most tokens of each answer; at least one, and with the prompt no more than the context."""
    sampling: Sampling = Sampling()
    stops: tuple[str, ...] = ()
    """Texts that end an answer; they are not part of it."""
    choices: int = 1
    """Answers to give; no more than the engine has rows."""


@dataclass(frozen=True)
class Piece:
    """The next part of one answer."""

    choice: int
    """Which answer, from 0."""
    text: str
    """Whole characters; may be empty."""
    tokens: int
    """Tokens drawn for this answer so far, its end token included."""
    finish: Finish | None = None
    """Set on the last piece: the model or a stop string ended the answer, or the length limit did."""
