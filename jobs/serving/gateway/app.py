"""The gateway as an ASGI application: what is reachable, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from jobs.serving.gateway.forward import Cut, Job, forward
from jobs.serving.gateway.http import Call, ClientGone, Receive, Scope, Send, while_there
from jobs.serving.gateway.static import page
from jobs.serving.gateway.sse import error_event
from jobs.serving.gateway.state import State
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, Request, parse

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLIENT_LEFT = 499
"""In metrics and logs: the status that nginx gives to a request whose client did not wait."""

Handler = Callable[[Call], Awaitable[None]]


class Gateway:
    """The application. What changes while it runs is in `state`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/chat/completions": ("POST", lambda call: self._complete(call, ChatRequest)),
            "/v1/completions": ("POST", lambda call: self._complete(call, CompletionRequest)),
            "/v1/models": ("GET", self._models),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._metrics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens, in OpenAI's shape."""
        assert scope["type"] == "http", "started without lifespan and websockets"
        call = Call(scope, receive, send)
        try:
            await self._route(call)
        except ApiError as error:
            await call.refuse(error)
        except ClientGone:
            pass
        except Exception as error:
            # Neither the message nor the values in the frames: they may hold a prompt.
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
            _log.error("%s %s: %s at %s", call.method, call.path, type(error).__name__, place)
            if call.started:
                raise
            await call.refuse(ApiError(500, "The gateway failed.", kind="server_error", code="internal_error"))

    async def _route(self, call: Call) -> None:
        known = self._routes.get(call.path)
        if known is None:
            await page(call)
            return
        method, handler = known
        if call.method != method and not (call.method == "HEAD" and method == "GET"):
            raise ApiError(405, f"{call.path} takes {method}.", code="method_not_allowed")
        await handler(call)

    async def _complete(self, call: Call, kind: type[Request]) -> None:
        given = call.header("x-request-id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
        call.extra_headers.append(("x-request-id", request_id))
        state = self._state
        config = state.config
        job: Job | None = None
        status = 200
        began_s = time.monotonic()
        try:
            request = parse(await call.body(config.limits.body_bytes), kind)
            who = request.user or call.header("x-session-id") or request_id
            job = Job(
                path=call.path,
                request=request,
                request_id=request_id,
                routes=state.routes(request.model, who, call.header("x-haetsal-variant")),
                settings=config,
                metrics=state.metrics,
            )
            async with asyncio.timeout(config.timeouts.whole_s):
                await while_there(call, forward(job, call))
        except ApiError as error:
            status = error.status
            raise
        except ClientGone:
            status = _CLIENT_LEFT
            raise
        except (Cut, TimeoutError) as error:
            reason = str(error) if isinstance(error, Cut) else "whole"
            refusal = ApiError(504, "The model stopped answering.", kind="server_error", code="stream_cut")
            if not call.started:
                status = refusal.status
                raise refusal from None
            assert job
            state.metrics.cuts.labels(request.model, job.variant, reason).inc()
            await call.piece(error_event(refusal.body()))
            await call.end()
        finally:
            model = job.request.model if job else ""
            variant = job.variant if job else ""
            state.metrics.requests.labels(model, variant, str(status), "").inc()
            if job and status == 200:
                state.metrics.duration.labels(model, variant).observe(time.monotonic() - began_s)
                if job.first_token_s is not None:
                    state.metrics.first_token.labels(model, variant).observe(job.first_token_s)

    async def _models(self, call: Call) -> None:
        state = self._state
        models = [
            {"id": name, "object": "model", "created": state.started_unix_s, "owned_by": "haetsal"}
            for name in state.config.models
        ]
        await call.json(200, {"object": "list", "data": models})

    async def _healthz(self, call: Call) -> None:
        await call.json(200, {"status": "ok"})

    async def _readyz(self, call: Call) -> None:
        why = self._state.unready()
        await call.json(503 if why else 200, {"status": why or "ok"})

    async def _metrics(self, call: Call) -> None:
        await call.respond(200, generate_latest(self._state.metrics.registry), CONTENT_TYPE_LATEST)
