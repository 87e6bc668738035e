"""Answers in OpenAI's format: JSON bodies and the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.serving.engines.task import Finish, Piece
from jobs.serving.protocol import ApiError

DONE = b"data: [DONE]\n\n"


def event(content: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


@dataclass(frozen=True)
class Answer:
    """What all parts of one answer carry."""

    kind: Literal["chat", "text"]
    id: str
    model: str
    created_unix_s: int
    prompt_tokens: int

    def whole(self, texts: Sequence[str], finishes: Sequence[Finish], tokens: int) -> dict[str, Any]:
        """The body of an answer without streaming: one text per choice, `tokens` of all choices together."""
        choices = [
            {"index": index, "finish_reason": finish, "logprobs": None} | self._whole_text(text)
            for index, (text, finish) in enumerate(zip(texts, finishes, strict=True))
        ]
        kind = "chat.completion" if self.kind == "chat" else "text_completion"
        return self._frame(kind, choices) | {"usage": self._usage(tokens)}

    def opening(self, choice: int) -> dict[str, Any] | None:
        """The event that names the speaker, before the first text; text completions have none."""
        return (
            self._chunk(choice, {"delta": {"role": "assistant", "content": ""}}, None) if self.kind == "chat" else None
        )

    def part(self, piece: Piece) -> dict[str, Any]:
        """The event of a piece."""
        if self.kind == "text":
            return self._chunk(piece.choice, {"text": piece.text}, piece.finish)
        delta = {"content": piece.text} if piece.text else {}
        return self._chunk(piece.choice, {"delta": delta}, piece.finish)

    def closing(self, tokens: int) -> dict[str, Any]:
        """The event that counts the tokens."""
        return self._frame(self._chunk_kind, []) | {"usage": self._usage(tokens)}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if self.kind == "chat" else {"text": text}

    def _chunk(self, choice: int, content: dict[str, Any], finish: Finish | None) -> dict[str, Any]:
        return self._frame(self._chunk_kind, [{"index": choice, "finish_reason": finish, "logprobs": None} | content])

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created_unix_s, "model": self.model, "choices": choices}

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self.prompt_tokens + tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": tokens, "total_tokens": total}


def models(names: Sequence[str], created_unix_s: int) -> dict[str, Any]:
    """The body of `/v1/models`."""
    data = [{"id": name, "object": "model", "created": created_unix_s, "owned_by": "haetsal"} for name in names]
    return {"object": "list", "data": data}


def broken() -> ApiError:
    """What a client hears when the computation failed; why is in the log."""
    return ApiError(500, "The engine failed on this request.", kind="server_error", code="engine_error")
