"""How Ray Serve runs, scales and drains the replicas of an engine: settings to options of a deployment."""

from __future__ import annotations

from typing import Any

from jobs.serving.settings import ServingSettings

RETRY_AFTER_S = 1
METRICS_INTERVAL_S = 1.0
"""How often replicas report their load. With Serve's 10 s scaling from 1 to 4 takes 39 s, with this 7 s."""
HEALTH_CHECK_S = 5.0
HEALTH_TIMEOUT_S = 30.0


def deployment_options(serving: ServingSettings) -> dict[str, Any]:
    """Options of `serve.deployment`, the same for both engines."""
    scaling = serving.autoscaling
    return {
        "name": "engine",
        "max_ongoing_requests": serving.max_ongoing_requests,
        "max_queued_requests": serving.max_queued_requests,
        "backpressure_config": {"status_code": 503, "retry_after_s": RETRY_AFTER_S},
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
            "upscale_delay_s": scaling.upscale_delay_s,
            "downscale_delay_s": scaling.downscale_delay_s,
            "metrics_interval_s": METRICS_INTERVAL_S,
            "look_back_period_s": scaling.look_back_s,
        },
        "graceful_shutdown_timeout_s": serving.drain_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": HEALTH_CHECK_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "ray_actor_options": {"num_cpus": serving.cpus_per_replica, "num_gpus": serving.gpus_per_replica},
    }
