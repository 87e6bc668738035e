"""`python -m jobs.serving.gateway --config routes.yaml [--host ADDRESS] [--port N]`: serve the OpenAI API."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvloop

from jobs.cli import main
from jobs.serving.gateway.server import serve


def _run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="backends, models and limits")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    options = parser.parse_args()
    uvloop.run(serve(options.config, options.host, options.port))


if __name__ == "__main__":
    main(_run)
