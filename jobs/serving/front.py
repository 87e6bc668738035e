"""From a checked request to a task, and from an engine's pieces to an answer. Knows nothing of HTTP servers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

from jinja2 import TemplateError

from jobs.serving import answers
from jobs.serving.answers import Answer, event
from jobs.serving.engines.task import Finish, Piece, Sampling, Task
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, Request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


class Generator(Protocol):
    """The half of an engine that answers."""

    @property
    def models(self) -> list[str]: ...

    def generate(self, task: Task) -> AsyncIterator[Piece]: ...


class Front:
    """One engine's side of the protocol."""

    def __init__(
        self, engine: Generator, tokenizer: PreTrainedTokenizerBase, context_tokens: int, most_choices: int
    ) -> None:
        """`most_choices`: answers to one prompt that the engine can compute side by side."""
        self._engine, self._tokenizer = engine, tokenizer
        self._context_tokens, self._most_choices = context_tokens, most_choices

    async def task(self, request: Request) -> Task:
        """What the engine has to do. Raises ApiError for an unknown model and for more than the engine can hold."""
        if request.model not in self._engine.models:
            raise ApiError(404, f"The model {request.model!r} does not exist.", code="model_not_found", param="model")
        if request.n > self._most_choices:
            raise ApiError(400, f"n is {self._most_choices} at most here.", code="invalid_value", param="n")
        # Long prompts take milliseconds, in which other answers are to go on; the tokenizer lets go of the lock.
        prompt = await asyncio.to_thread(self._tokens, request)
        room = self._context_tokens - len(prompt)
        wanted = _answer_tokens(request)
        if room < (wanted or 1):
            raise ApiError(
                400,
                f"This model's context is {self._context_tokens} tokens, but {len(prompt)} of the prompt and "
                f"{wanted or 1} of the answer were asked for.",
                code="context_length_exceeded",
                param="messages" if isinstance(request, ChatRequest) else "prompt",
            )
        sampling = Sampling(
            request.temperature, request.top_p, request.presence_penalty, request.frequency_penalty, request.seed
        )
        return Task(request.model, tuple(prompt), wanted or room, sampling, tuple(request.stops), request.n)

    async def answer(self, request: Request, task: Task) -> dict[str, Any]:
        """The body of the whole answer. Raises ApiError when the computation failed."""
        texts = [""] * task.choices
        finishes: list[Finish] = ["length"] * task.choices
        tokens = [0] * task.choices
        try:
            async for piece in self._engine.generate(task):
                texts[piece.choice] += piece.text
                tokens[piece.choice] = piece.tokens
                finishes[piece.choice] = piece.finish or finishes[piece.choice]
        except RuntimeError as error:
            raise _failed(error) from None
        return _frame(request, task).whole(texts, finishes, sum(tokens))

    async def stream(self, request: Request, task: Task) -> AsyncGenerator[bytes, None]:
        """The same as events. When the computation fails the last one is the error, and there is no [DONE]."""
        frame = _frame(request, task)
        tokens = [0] * task.choices
        for choice in range(task.choices):
            if opening := frame.opening(choice):
                yield event(opening)
        try:
            async for piece in self._engine.generate(task):
                tokens[piece.choice] = piece.tokens
                if piece.text or piece.finish:
                    yield event(frame.part(piece))
        except RuntimeError as error:
            yield event(_failed(error).body())
            return
        if request.includes_usage:
            yield event(frame.closing(sum(tokens)))
        yield answers.DONE

    def _tokens(self, request: Request) -> list[int]:
        if isinstance(request, CompletionRequest):
            return self._checked(list(self._tokenizer(request.prompt)["input_ids"]), "prompt")
        assert isinstance(request, ChatRequest)
        messages = [{"role": message.role, "content": message.text} for message in request.messages]
        try:
            encoded = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        except (TemplateError, ValueError) as error:
            # The template's own words (`roles must alternate`); it is given nothing else to quote.
            raise ApiError(
                400, f"The model's chat template refuses these messages: {error}.", param="messages"
            ) from None
        return self._checked(list(encoded["input_ids"]), "messages")

    @staticmethod
    def _checked(tokens: list[int], param: str) -> list[int]:
        if not tokens:
            raise ApiError(400, "The prompt is empty.", code="invalid_value", param=param)
        return tokens


def _answer_tokens(request: Request) -> int | None:
    assert isinstance(request, ChatRequest | CompletionRequest)
    return request.answer_tokens


def _frame(request: Request, task: Task) -> Answer:
    is_chat = isinstance(request, ChatRequest)
    answer_id = f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}"
    return Answer("chat" if is_chat else "text", answer_id, request.model, int(time.time()), len(task.prompt))


def _failed(error: RuntimeError) -> ApiError:
    _log.error("computation failed: %s", error, exc_info=error)
    return answers.broken()
