"""Server-sent events as they pass through: whole events only, and what must be known about them.

Bytes are passed on as they came. An event is looked into only where a search for a few bytes says so: inside JSON a
quotation mark of the text itself is escaped, so `"usage":` can only be the key of that name.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

LONGEST_EVENT_BYTES = 1_048_576
_END = b"\n\n"
_DONE = (b"data: [DONE]", b"data:[DONE]")
_ROLE = re.compile(rb'"role": ?"assistant"')
_EMPTY = re.compile(rb'"content": ?(?:""|null)')
_ERROR = (b'data: {"error"', b'data:{"error"', b'data: {"object":"error"')


class Usage(NamedTuple):
    """Tokens of one request."""

    prompt: int
    completion: int


def usage_of(answer: Any) -> Usage | None:
    """The count of tokens in an answer or chunk, if it has one."""
    found = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return None
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens")
    return Usage(prompt, completion or 0) if isinstance(prompt, int) else None


class Events:
    """One stream. `feed` gives back what can be sent on; the fields say what has been seen so far."""

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._tail = b""
        self.count = 0
        """Events passed on."""
        self.usage: Usage | None = None
        self.done = False
        """`[DONE]` came: the answer is complete, and nothing after it is passed on."""
        self.failed = False
        """The backend sent an error event. It is not passed on: it may tell more than a client should know."""

    def feed(self, data: bytes) -> bytes:
        """Whole events out of `data` and what was left over before. Raises ValueError for an endless event."""
        if self._tail:
            data = self._tail + data
        if b"\r" in data:
            data = data.replace(b"\r\n", _END[:1])
        end = data.rfind(_END) + len(_END)
        if end < len(_END):
            end = 0
        whole, self._tail = data[:end], data[end:]
        if len(self._tail) > LONGEST_EVENT_BYTES:
            raise ValueError("an event without an end")
        if b"[DONE]" in whole or b'{"error"' in whole or b'"error",' in whole or b'"usage":' in whole:
            whole = b"".join(event + _END for event in whole[: -len(_END)].split(_END) if self._passes(event))
        self.count += whole.count(_END)
        return whole

    def _passes(self, event: bytes) -> bool:
        if self.done or self.failed:
            return False
        if event.startswith(_DONE):
            self.done = True
            return True
        if event.startswith(_ERROR):
            self.failed = True
            return False
        if b'"usage":' not in event or b'"usage":null' in event or b'"usage": null' in event:
            return True
        try:
            chunk = json.loads(event.removeprefix(b"data:"))
        except ValueError:
            return True
        self.usage = usage_of(chunk) or self.usage
        return self._keep_usage or usage_of(chunk) is None or bool(chunk.get("choices"))


def only_opening(events: bytes) -> bool:
    """Whether whole events say no more than that an assistant is about to speak. Engines send that before they compute
    anything: held back until more comes, it leaves the way open to another try."""
    return len(_ROLE.findall(events)) == len(_EMPTY.findall(events)) == events.count(_END)


def error_event(body: dict[str, Any]) -> bytes:
    """An error in the middle of a stream, as OpenAI's clients expect it."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + _END
