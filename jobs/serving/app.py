"""The Ray Serve application: `jobs.serving.app:build`, here and in a RayService.

`build` takes a tree of settings (`model`, `serving`, `storage`), the same as a run's. One deployment answers HTTP by
itself, so that a request makes one hop behind the proxy.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

import ray
from ray import serve
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from jobs import settings
from jobs.serving import answers, scaling, source
from jobs.serving.front import Front
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, parse
from jobs.settings import Settings
from jobs.spans import Spans

STALLED_S = 120.0
"""A step that takes longer will not end: the replica is replaced."""

_ROUTES: dict[str, type[ChatRequest] | type[CompletionRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
}


class EngineServer:
    """One replica: an engine, warmed up, and its side of the protocol."""

    def __init__(self, tree: dict[str, Any]) -> None:
        from jobs.serving.engines.start import Replica  # torch is for replicas, not for whoever builds the application

        checked = settings.from_tree(tree, "serving application")
        self._replica = Replica(checked)
        self._engine = self._replica.engine
        self._front = Front(
            self._engine, self._replica.tokenizer, self._replica.context_tokens, checked.serving.most_rows
        )
        self._created_unix_s = int(time.time())
        self._spans = Spans("haetsal-engine")

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Serve's `user_config`, `{adapters: {name: address}}`: load what is new, drop what is gone, warm up.

        Serve calls it before a replica is ready, and again when a changed configuration is pushed.
        """
        await self._replica.set_adapters(config["adapters"])
        await self._replica.warm_up()

    def check_health(self) -> None:
        """Serve asks this; raising means that the replica is replaced."""
        if (stalled_s := self._engine.stalled_s()) > STALLED_S:
            raise RuntimeError(f"the engine has not finished a step for {stalled_s:.0f} s")

    def __del__(self) -> None:
        if engine := getattr(self, "_engine", None):
            engine.close()

    async def __call__(self, http: HttpRequest) -> Response:
        """Answer one HTTP request."""
        try:
            return await self._answer(http)
        except ApiError as error:
            return JSONResponse(error.body(), error.status, headers=error.headers())

    async def _answer(self, http: HttpRequest) -> Response:
        path = http.url.path
        if path == "/v1/models":
            _expect(http, "GET")
            return JSONResponse(answers.models(self._engine.models, self._created_unix_s))
        if path not in _ROUTES:
            raise ApiError(404, f"Unknown path: {path}.", code="unknown_url")
        _expect(http, "POST")
        request = parse(await http.body(), _ROUTES[path])
        task = await self._front.task(request)
        if request.stream:
            return StreamingResponse(
                self._spanned(http, self._front.stream(request, task)),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
            )
        with self._spans.span("generate", http.headers):
            return JSONResponse(await self._front.answer(request, task))

    async def _spanned(self, http: HttpRequest, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        """The pieces of a stream, in a span from the first to the last."""
        with self._spans.span("generate", http.headers):
            async with aclosing(pieces):  # a client that leaves ends the computation at once
                async for piece in pieces:
                    yield piece


def _expect(http: HttpRequest, method: str) -> None:
    if http.method != method:
        raise ApiError(405, f"{http.url.path} takes {method}.", code="method_not_allowed")


def build(tree: dict[str, Any]) -> serve.Application:
    """The application for a tree of settings.

    Raises UsageError for one that is not valid, EnvironmentNotReady if its engine is not installed.
    """
    resolved = source.named(settings.from_tree(tree, "serving application"))
    if engine_of(resolved) == "vllm":
        from jobs.serving.engines import vllm

        return vllm.build(resolved)
    adapters = {"adapters": dict(resolved.serving.adapters)}
    deployment = serve.deployment(EngineServer).options(
        user_config=adapters, **scaling.deployment_options(resolved.serving)
    )
    # Adapters go by user_config alone: a change there is pushed to the replicas, a change here would replace them.
    without = resolved.serving.model_copy(update={"adapters": {}})
    return deployment.bind(resolved.model_copy(update={"serving": without}).model_dump(mode="json"))


def engine_of(tree: Settings) -> Literal["transformers", "vllm"]:
    """The engine that `serving.engine` means on this cluster."""
    if tree.serving.engine != "auto":
        return tree.serving.engine
    has_gpu = bool(ray.is_initialized() and ray.cluster_resources().get("GPU"))
    return "vllm" if has_gpu and importlib.util.find_spec("vllm") else "transformers"
