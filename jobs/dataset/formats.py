"""From a row's columns to a conversation.

| format | columns |
|---|---|
| messages | `messages`: list of `role`, `content` (text, or a list of `{"type": "text", "text": …}`) |
| sharegpt | `conversations`: list of `from`, `value`; optional `system` |
| alpaca | `instruction`, `output`; optional `input`, `system` |
| prompt-completion | `prompt`, `completion`; optional `system` |
| text | `text` |

Turns may be spelled `role`/`content` or `from`/`value` in either of the first two. Other columns are ignored.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from jobs.dataset.conversation import Conversation, Message, Role
from jobs.errors import UsageError

Columns = dict[str, Any]

REQUIRED_COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
}
"""Most specific first: Alpaca sets, for one, often carry a `text` column with the same content rendered."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}


def recognise(columns: Iterable[str], wanted: str, origin: str) -> str:
    """Name of the format that a row with these columns is in.

    `wanted` is `data.format`; unless it is `auto`, the row must have that format's columns. Raises UsageError.
    """
    seen = list(columns)
    candidates = REQUIRED_COLUMNS if wanted == "auto" else {wanted: REQUIRED_COLUMNS[wanted]}
    for name, required in candidates.items():
        if all(column in seen for column in required):
            return name
    shown = ", ".join(seen) or "(none)"
    if wanted != "auto":
        needed = " and ".join(REQUIRED_COLUMNS[wanted])
        raise UsageError(
            f"{origin}: columns {shown}, but the format is {wanted} (by data.format or first row), which needs {needed}"
        )
    known = "; ".join(f"{name}: {', '.join(required)}" for name, required in REQUIRED_COLUMNS.items())
    raise UsageError(f"{origin}: columns {shown} fit no known format ({known}); rename the columns")


def parse(row: Columns, format_name: str, origin: str) -> Conversation:
    """Read one row. Raises UsageError naming row and key for anything that is not a conversation or a text."""
    recognise(row, format_name, origin)
    if format_name == "text":
        return Conversation((), _filled(row, "text", origin), origin)
    return Conversation(_with_an_answer(_PARSERS[format_name](row, origin), origin), None, origin)


def _turns(column: str) -> Callable[[Columns, str], list[Message]]:
    def parse_turns(row: Columns, origin: str) -> list[Message]:
        turns = row[column]
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise UsageError(f"{origin}: {column} must be a list of turns, each with a role and content")
        messages = [_turn(turn, f"{column}[{index}]", origin) for index, turn in enumerate(turns)]
        # Many sets give every row a system prompt and leave it empty.
        return _system(row, origin) + [m for m in messages if m.role != "system" or m.content.strip()]

    return parse_turns


def _turn(turn: Columns, key: str, origin: str) -> Message:
    role_key, content_key = ("role", "content") if "role" in turn else ("from", "value")
    if role_key not in turn or content_key not in turn:
        raise UsageError(
            f"{origin}: {key} has the keys {', '.join(turn)}; it needs role and content, or from and value"
        )
    role, content = turn[role_key], turn[content_key]
    if not isinstance(role, str) or role not in _ROLES:
        raise UsageError(f"{origin}: {key}.{role_key} is {role!r}; known roles are {', '.join(_ROLES)}")
    if isinstance(content, list):
        content = _joined_parts(content, f"{key}.{content_key}", origin)
    text = _text(content, f"{key}.{content_key}", origin)
    if not text.strip() and _ROLES[role] != "system":
        raise UsageError(f"{origin}: {key}.{content_key} is empty; fill it or remove the row")
    return Message(_ROLES[role], text)


def _joined_parts(parts: list[Any], key: str, origin: str) -> str:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise UsageError(f"{origin}: {key} has a part of type {kind}; only text can be trained on")
    return "".join(_text(part.get("text"), key, origin) for part in parts)


def _alpaca(row: Columns, origin: str) -> list[Message]:
    question = _filled(row, "instruction", origin)
    context = _optional(row, "input", origin)
    return [
        *_system(row, origin),
        Message("user", f"{question}\n\n{context}" if context else question),
        Message("assistant", _filled(row, "output", origin)),
    ]


def _prompt_completion(row: Columns, origin: str) -> list[Message]:
    return [
        *_system(row, origin),
        Message("user", _filled(row, "prompt", origin)),
        Message("assistant", _filled(row, "completion", origin)),
    ]


_PARSERS: dict[str, Callable[[Columns, str], list[Message]]] = {
    "messages": _turns("messages"),
    "sharegpt": _turns("conversations"),
    "alpaca": _alpaca,
    "prompt-completion": _prompt_completion,
}


def _with_an_answer(messages: list[Message], origin: str) -> tuple[Message, ...]:
    """The turns up to the assistant's last one; nothing can be learned from what comes after it."""
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise UsageError(f"{origin}: no assistant turn, so there is nothing to learn; add an answer or remove the row")
    return tuple(messages[: answers[-1] + 1])


def _system(row: Columns, origin: str) -> list[Message]:
    system = _optional(row, "system", origin)
    return [Message("system", system)] if system else []


def _optional(row: Columns, key: str, origin: str) -> str:
    return "" if row.get(key) is None else _text(row[key], key, origin).strip()


def _filled(row: Columns, key: str, origin: str) -> str:
    text = _text("" if row[key] is None else row[key], key, origin)
    if not text.strip():
        raise UsageError(f"{origin}: {key} is empty; fill it or remove the row")
    return text


def _text(value: Any, key: str, origin: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{origin}: {key} must be text, found {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise UsageError(
            f"{origin}: {key} has half of a surrogate pair ({half!r}) at character {error.start}; write the whole one"
        ) from None
    return unicodedata.normalize("NFC", value)
