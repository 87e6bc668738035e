"""`/v1/chat/completions` and `/v1/completions`: who asks, what may be asked, and what is written down about it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.serving.gateway.config import Limits
from jobs.serving.gateway.forward import Cut, Job, forward
from jobs.serving.gateway.http import Call, ClientGone, while_there
from jobs.serving.gateway.limits import Reserved
from jobs.serving.gateway.receipts import Answered
from jobs.serving.gateway.sse import error_event
from jobs.serving.gateway.state import State
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, parse

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_log = logging.getLogger("gateway")
_CLIENT_LEFT = "499"
"""The status that nginx gives to a request whose client did not wait."""
_CUT = "cut"
_BYTES_PER_TOKEN = 3
"""Of a prompt, for the limit on tokens until the engine has counted: a Hangul syllable is three bytes of UTF-8."""
_USUAL_ANSWER_TOKENS = 256
"""What is set aside for an answer whose length the client did not bound."""


@dataclass
class _Record:
    """What becomes of one request."""

    began_s: float
    status: str = "200"
    key_id: str = ""
    reserved: Reserved | None = None
    prompt_tokens: int = 0
    job: Job | None = None


async def complete(state: State, call: Call, kind: type[ChatRequest] | type[CompletionRequest]) -> None:
    """Answer one request. Raises ApiError, and ClientGone when there is nobody left to answer."""
    record = _Record(time.monotonic())
    with state.spans.span("completion") as span:
        try:
            await _answer(state, call, kind, record, span)
        finally:
            if span:
                model, variant = (record.job.request.model, record.job.variant) if record.job else ("", "")
                span.set_attributes(
                    {"haetsal.model": model, "haetsal.variant": variant, "haetsal.status": record.status}
                )


async def _answer(
    state: State, call: Call, kind: type[ChatRequest] | type[CompletionRequest], record: _Record, span: Span | None
) -> None:
    try:
        await _complete(state, call, kind, record, span)
    except ApiError as error:
        record.status = str(error.status)
        raise
    except ClientGone:
        record.status = _CLIENT_LEFT
        raise
    except Exception:
        record.status = "500"
        raise
    finally:
        _write_down(state, call, record)


async def _complete(
    state: State, call: Call, kind: type[ChatRequest] | type[CompletionRequest], record: _Record, span: Span | None
) -> None:
    config = state.config
    caller = state.caller(call.header("authorization"))
    record.key_id = caller.id
    caller.limits.request()
    body = await call.body(config.limits.body_bytes)
    request: ChatRequest | CompletionRequest = parse(body, kind)
    _check(request, config.limits)
    record.prompt_tokens = len(body) // _BYTES_PER_TOKEN
    who = request.user or call.header("x-session-id")
    # Users of two keys may have the same name. Who has none is a new user each time.
    identity = f"{request.model}/{caller.id}/{who}" if who else call.request_id
    job = Job(
        path=call.path,
        request=request,
        request_id=call.request_id,
        routes=state.routes(request.model, identity, call.header("x-haetsal-variant")),
        settings=config,
        metrics=state.metrics,
        spans=state.spans,
        span=span,
        sign=lambda variant: state.receipts.sign(Answered(call.request_id, request.model, variant), caller.id),
    )
    answers = request.n * (request.answer_tokens or min(_USUAL_ANSWER_TOKENS, config.limits.output_tokens))
    record.reserved = caller.limits.reserve(record.prompt_tokens + answers)
    record.job = job
    state.shadows.copy(job, config.models[request.model].shadow, state.backends)
    try:
        with state.running():
            async with asyncio.timeout(config.timeouts.whole_s):
                await while_there(call, forward(job, call))
    except (Cut, TimeoutError) as error:
        await _end(state, call, record, str(error) if isinstance(error, Cut) else "whole")
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not (state.stopping and task):
            raise
        task.uncancel()
        await _end(state, call, record, "shutdown")


async def _end(state: State, call: Call, record: _Record, reason: str) -> None:
    """No more will come: an error, as an event where a stream has begun."""
    message = "The gateway is restarting." if reason == "shutdown" else "The model stopped answering."
    error = ApiError(503 if reason == "shutdown" else 504, message, kind="server_error", code=reason)
    if not call.started:
        raise error
    job = record.job
    assert job
    record.status = _CUT
    state.metrics.cuts.labels(job.request.model, job.variant, reason).inc()
    await call.piece(error_event(error.body()))
    await call.end()


def _check(request: ChatRequest | CompletionRequest, limits: Limits) -> None:
    prompt = request.prompt if isinstance(request, CompletionRequest) else "".join(m.text for m in request.messages)
    if len(prompt) > limits.prompt_chars:
        message = f"The prompt is longer than {limits.prompt_chars} characters."
        raise ApiError(400, message, code="context_length_exceeded")
    for name, value, most in (
        ("max_tokens", request.answer_tokens, limits.output_tokens),
        ("n", request.n, limits.choices),
    ):
        if value and value > most:
            raise ApiError(400, f"{name} is {most} at most here.", code="invalid_value", param=name)


def _write_down(state: State, call: Call, record: _Record) -> None:
    metrics, job, key = state.metrics, record.job, record.key_id
    model, variant = (job.request.model, job.variant) if job else ("", "")
    took_s = time.monotonic() - record.began_s
    metrics.requests.labels(model, variant, record.status, key).inc()
    prompt, completion = 0, 0
    if job and job.variant:
        # An engine counts at the end only: of an answer that was broken off, each event was a token.
        seen = job.events
        prompt, completion = (seen.usage if seen else job.usage) or (record.prompt_tokens, seen.count if seen else 0)
        metrics.tokens.labels(model, variant, "prompt", key).inc(prompt)
        metrics.tokens.labels(model, variant, "completion", key).inc(completion)
        if job.first_token_s is not None:
            metrics.first_token.labels(model, variant).observe(job.first_token_s)
        if record.status == "200":
            metrics.duration.labels(model, variant).observe(took_s)
    if record.reserved:
        record.reserved.settle(prompt + completion)
    _log.info(
        "id=%s key=%s model=%s variant=%s status=%s ms=%.1f tokens=%d+%d",
        call.request_id, key or "-", model or "-", variant or "-", record.status, took_s * 1000, prompt, completion,
    )  # fmt: skip
