"""Simulated users: held-out prompts sent to a gateway, answers timed, and rated by how near they come to the reference.

They take the place of real traffic where there is none, on one's own machine. The rating is the F-score of character
pairs (chrF of Popović 2015 with n = 2, β = 1): it needs no second model, and length alone does not raise it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import urllib3

from jobs.dataset.reading import read_rows
from jobs.dataset.split import split
from jobs.errors import UsageError
from jobs.registry.versions import CHALLENGER
from jobs.release.ab import Observation
from jobs.settings import DataSettings

VARIANT = "x-haetsal-variant"
REQUEST_ID = "x-request-id"
_MOST_POINTS = 4
"""Feedback is 1 to 5 points."""
_PATIENCE_S = 120.0
_PAUSE_S = 0.5


@dataclass(frozen=True)
class Question:
    """A held-out conversation up to the assistant's last turn, and what followed."""

    messages: tuple[dict[str, str], ...]
    reference: str


def questions(data: DataSettings) -> list[Question]:
    """The held-out conversations of a dataset. Raises UsageError for one of plain texts, which ask nothing."""
    rows = [row for row in split(read_rows(data), data.held_out, data.source)[1] if row.text is None]
    if not rows:
        raise UsageError(f"{data.source}: holds texts and no conversations to ask; set release.ab=false")
    return [
        Question(tuple({"role": m.role, "content": m.content} for m in row.messages[:-1]), row.messages[-1].content)
        for row in rows
    ]


def likeness(answer: str, reference: str) -> float:
    """From 0 (no pair of neighbouring characters in common) to 1 (the same pairs)."""
    ours, theirs = (Counter(itertools.pairwise("".join(text.split()))) for text in (answer, reference))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


class Users:
    """A number of users, each with one request in flight, for as long as the context lasts.

    `draw` gives each request's variant, which the gateway is asked for by name: unnamed, it would answer a failure of
    one variant with the other, and nobody would see the failure. None: the gateway chooses, and nothing is observed.
    """

    def __init__(
        self,
        address: str,
        model: str,
        asked: Sequence[Question],
        draw: Callable[[], str | None],
        count: int,
        max_tokens: int,
    ) -> None:
        self._address, self._model, self._draw, self._max_tokens = address, model, draw, max_tokens
        self._asked, self._numbers = itertools.cycle(asked), itertools.count()
        self._lock = threading.Lock()
        self._seen: list[Observation] = []
        self._over = threading.Event()
        self._pool = urllib3.PoolManager(maxsize=count, retries=False, timeout=urllib3.Timeout(_PATIENCE_S))
        self._threads = [threading.Thread(target=self._go_on_asking, name=f"user-{n}") for n in range(count)]

    def observed(self) -> list[Observation]:
        """What was answered since the last call, in order of time."""
        with self._lock:
            seen, self._seen = self._seen, []
        return sorted(seen, key=lambda one: one.at_unix_s)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _go_on_asking(self) -> None:
        while not self._over.is_set():
            with self._lock:
                question, number = next(self._asked), next(self._numbers)
            user = f"user-{number}"
            variant = self._draw()
            try:
                found = self._ask(question, user, variant)
            except urllib3.exceptions.HTTPError:
                self._over.wait(_PAUSE_S)  # the gateway itself is away, which says nothing about a variant
                continue
            if variant is not None:
                with self._lock:
                    self._seen.append(found)

    def _ask(self, question: Question, user: str, variant: str | None) -> Observation:
        body = {
            "model": self._model,
            "messages": question.messages,
            "max_tokens": self._max_tokens,
            "temperature": 0.0,
            "user": user,
        }
        began_s, is_challenger = time.perf_counter(), variant == CHALLENGER
        answer = self._post("/v1/chat/completions", body, {VARIANT: variant} if variant else None)
        latency_s = time.perf_counter() - began_s
        if answer.status != 200:
            return Observation(time.time(), is_challenger, failed=True)
        said = answer.json()
        likes = likeness(said["choices"][0]["message"]["content"], question.reference)
        points = 1 + round(_MOST_POINTS * likes)
        self._post("/v1/feedback", {"request_id": answer.headers.get(REQUEST_ID, ""), "score": points})
        tokens = said["usage"]["completion_tokens"]
        return Observation(time.time(), is_challenger, False, latency_s, tokens, (points - 1) / _MOST_POINTS)

    def _post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        return self._pool.request("POST", f"{self._address}{path}", json=body, headers=headers)
