"""The gateway as an ASGI application: what is reachable, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from jobs.serving.gateway.completions import complete
from jobs.serving.gateway.feedback import Feedback
from jobs.serving.gateway.http import Call, ClientGone, Receive, Scope, Send
from jobs.serving.gateway.receipts import plain_id
from jobs.serving.gateway.state import State
from jobs.serving.gateway.static import page
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, parse

_log = logging.getLogger(__name__)
_LONGEST_FEEDBACK_BYTES = 16_384


class Gateway:
    """The application. What changes while it runs is in `state`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._routes: dict[str, tuple[str, Callable[[Call], Awaitable[None]]]] = {
            "/v1/chat/completions": ("POST", lambda call: complete(state, call, ChatRequest)),
            "/v1/completions": ("POST", lambda call: complete(state, call, CompletionRequest)),
            "/v1/feedback": ("POST", self._feedback),
            "/v1/models": ("GET", self._models),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._metrics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens, in OpenAI's shape."""
        call = Call(scope, receive, send)
        call.request_id = plain_id(call.header("x-request-id"))
        call.extra_headers["x-request-id"] = call.request_id
        if self._state.draining:
            call.extra_headers["connection"] = "close"
        try:
            await self._route(call)
        except ApiError as error:
            await call.refuse(error)
        except ClientGone:
            return
        except Exception as error:
            # Neither the message nor the values in the frames: they may hold a prompt.
            _log.error("id=%s %s at %s", call.request_id, type(error).__name__, _place(error))
            if not call.started:  # else the server sees an answer without an end, and closes the connection
                await call.refuse(ApiError(500, "The gateway failed.", kind="server_error", code="internal_error"))

    async def _route(self, call: Call) -> None:
        known = self._routes.get(call.path)
        if known is None:
            await page(call)
            return
        method, handler = known
        if call.method != method and (call.method, method) != ("HEAD", "GET"):
            raise ApiError(405, f"{call.path} takes {method}.", code="method_not_allowed")
        await handler(call)

    async def _models(self, call: Call) -> None:
        state = self._state
        state.caller(call.header("authorization")).limits.request()
        models = [
            {
                "id": name,
                "object": "model",
                "created": state.started_unix_s,
                "owned_by": "haetsal",
                "variants": [variant.name for variant in model.variants],
            }
            for name, model in state.config.models.items()
        ]
        await call.json(200, {"object": "list", "data": models})

    async def _feedback(self, call: Call) -> None:
        state = self._state
        caller = state.caller(call.header("authorization"))
        caller.limits.request()
        feedback = parse(await call.body(_LONGEST_FEEDBACK_BYTES), Feedback)
        answered = state.receipts.check(feedback.request_id, caller.id)
        if answered is None:
            message = "Nothing was answered to this key under this request id."
            raise ApiError(404, message, code="unknown_request_id", param="request_id")
        if state.feedback is None:
            raise ApiError(404, "Feedback is not taken here.", code="not_found")
        await state.feedback.append(feedback, answered, caller.id)
        state.metrics.feedback.labels(answered.model, answered.variant, feedback.thumb or "none").inc()
        await call.json(201, {"object": "feedback", "model": answered.model, "variant": answered.variant})

    async def _healthz(self, call: Call) -> None:
        await call.json(200, {"status": "ok"})

    async def _readyz(self, call: Call) -> None:
        why = self._state.unready()
        await call.json(503 if why else 200, {"status": why or "ok"})

    async def _metrics(self, call: Call) -> None:
        await call.respond(200, generate_latest(self._state.metrics.registry), CONTENT_TYPE_LATEST)


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
