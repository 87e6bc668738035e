"""Simulated users: held-out prompts sent to a gateway, answers timed, and rated by how near they come to the reference.

They take the place of real traffic where there is none, on one's own machine. The rating is the F-score of character
pairs (chrF of Popović 2015 with n = 2, β = 1): it needs no second model, and length alone does not raise it.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import urllib3

from jobs.dataset.reading import read_rows
from jobs.dataset.split import split
from jobs.errors import UsageError
from jobs.release.ab import Observation
from jobs.settings import DataSettings

VARIANT = "x-haetsal-variant"
REQUEST_ID = "x-request-id"


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
    """A number of users, each with one request in flight, for as long as the context lasts."""

    def __init__(
        self, address: str, model: str, challenger: str, asked: Sequence[Question], count: int, max_tokens: int
    ) -> None:
        self._address, self._model, self._challenger, self._max_tokens = address, model, challenger, max_tokens
        self._asked = itertools.cycle(asked)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._seen: list[Observation] = []
        self._over = threading.Event()
        self._pool = urllib3.PoolManager(maxsize=count, retries=False, timeout=urllib3.Timeout(120))
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
            found = self._ask(question, f"user-{number}")
            if found is None:
                self._over.wait(0.5)  # nobody answered, so nothing is known of any variant
                continue
            with self._lock:
                self._seen.append(found)

    def _ask(self, question: Question, user: str) -> Observation | None:
        """One request of one user; None if it is not known which variant it came to."""
        body = {"model": self._model, "messages": question.messages, "max_tokens": self._max_tokens, "user": user}
        began = time.perf_counter()
        try:
            answer = self._post("/v1/chat/completions", body | {"temperature": 0.0})
        except urllib3.exceptions.HTTPError:
            return None
        latency_s = time.perf_counter() - began
        variant = answer.headers.get(VARIANT)
        if variant is None:
            return None
        at, is_challenger = time.time(), variant == self._challenger
        if answer.status != 200:
            return Observation(at, is_challenger, failed=True)
        said = json.loads(answer.data)
        score = likeness(said["choices"][0]["message"]["content"], question.reference)
        self._rate(answer.headers.get(REQUEST_ID), score)
        return Observation(at, is_challenger, False, latency_s, said["usage"]["completion_tokens"], score)

    def _rate(self, request_id: str | None, score: float) -> None:
        """Say it to the gateway too, as real users do."""
        if request_id is not None:
            self._post("/v1/feedback", {"request_id": request_id, "score": score})

    def _post(self, path: str, body: Any) -> urllib3.BaseHTTPResponse:
        return self._pool.request("POST", f"{self._address}{path}", json=body)
