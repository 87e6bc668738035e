"""The Ray Serve application: `jobs.serving.app:build`, here and in a RayService.

`build` takes a tree of settings (`model`, `serving`, `storage`), the same as a run's. One deployment answers HTTP by
itself, so that a request makes one hop behind the proxy.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from jobs import settings
from jobs.serving import answers
from jobs.serving.front import Front
from jobs.serving.protocol import ApiError, ChatRequest, CompletionRequest, parse
from jobs.serving.settings import ServingSettings

RETRY_AFTER_S = 1
METRICS_INTERVAL_S = 1.0
"""How often replicas report their load. With Serve's 10 s scaling from 1 to 4 takes 39 s, with this 7 s."""
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

        self._replica = Replica(settings.from_tree(tree, "serving application"))
        self._engine = self._replica.engine
        self._front = Front(self._engine, self._replica.tokenizer, self._replica.context_tokens)
        self._created_unix_s = int(time.time())

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
                self._front.stream(request, task),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
            )
        return JSONResponse(await self._front.answer(request, task))


def _expect(http: HttpRequest, method: str) -> None:
    if http.method != method:
        raise ApiError(405, f"{http.url.path} takes {method}.", code="method_not_allowed")


def build(tree: dict[str, Any]) -> serve.Application:
    """The application for a tree of settings. Raises UsageError for one that is not valid."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    resolved = settings.from_tree(tree, "serving application")
    return deployment(resolved.serving).bind(resolved.model_dump(mode="json"))


def deployment(serving: ServingSettings) -> serve.Deployment:
    """How Serve runs and scales the replicas."""
    scaling = serving.autoscaling
    return serve.deployment(EngineServer).options(
        name="engine",
        user_config={"adapters": dict(serving.adapters)},
        max_ongoing_requests=serving.max_ongoing_requests,
        max_queued_requests=serving.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        autoscaling_config=AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            initial_replicas=max(1, scaling.min_replicas),
            max_replicas=scaling.max_replicas,
            target_ongoing_requests=scaling.target_ongoing_requests,
            upscale_delay_s=scaling.upscale_delay_s,
            downscale_delay_s=scaling.downscale_delay_s,
            metrics_interval_s=METRICS_INTERVAL_S,
            look_back_period_s=scaling.look_back_s,
        ),
        graceful_shutdown_timeout_s=serving.drain_s,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        health_check_timeout_s=30,
        ray_actor_options={"num_cpus": serving.cpus_per_replica, "num_gpus": serving.gpus_per_replica},
    )
