"""The stand-in engine on Ray Serve, as a process of its own that takes commands on its standard input.

    python -m tests.bench.serving.cluster --port 8101 --replicas 2

`update` rolls out another version and is answered by a line; `quit` ends it.
Whether HAProxy or Serve's own proxy answers is decided by RAY_SERVE_ENABLE_HA_PROXY in the environment.
"""

from __future__ import annotations

import argparse
import sys

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from tests.bench.serving.engine import Engine


class Served:
    """A replica of one version."""

    def __init__(self, version: int) -> None:
        self.version = version


def _deploy(replicas: int, version: int) -> None:
    deployment = serve.deployment(
        serve.ingress(Engine())(Served),
        name="engine",
        num_replicas=replicas,
        max_ongoing_requests=1000,
        health_check_period_s=1,
        health_check_timeout_s=5,
        graceful_shutdown_timeout_s=20,
        ray_actor_options={"num_cpus": 0},
    )
    serve.run(deployment.bind(version), name="bench", route_prefix="/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=options.port))
    version = 1
    _deploy(options.replicas, version)
    print("ready", flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            break
        version += 1
        _deploy(options.replicas, version)
        print(f"done {command}", flush=True)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
