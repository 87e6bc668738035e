"""`make serve`: an OpenAI-compatible API in front of the newest adapter, on this machine.

    python -m jobs.serve
    python -m jobs.serve --model train-20261122-101500-3fa9
    python -m jobs.serve --model models:/haetsal@champion       # or a folder, s3://…, a hub id

The gateway listens on port 8000 of the loopback address (`serving.port`), behind it Ray Serve runs the engine. Ctrl-C
ends both.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from jobs import cli, settings
from jobs.errors import EnvironmentNotReady
from jobs.serving import app, local, source
from jobs.serving.engines import vllm
from jobs.settings import Settings
from jobs.storage import Storage

_ENGINE_PORT = 8100
_PUBLIC_NAME = "haetsal"
"""What the gateway calls the model that `make serve` was asked for, whatever run it comes from."""


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument(
        "--model",
        metavar="NAME",
        help="run id, models:/<name>@<alias>, folder, s3://… or hub id (default: the training run that finished last)",
    )
    arguments = options.parse_args()
    serve(source.subject(settings.load(arguments.config, arguments.overrides), arguments.model))


def serve(tree: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises EnvironmentNotReady if engine or gateway does not start, or ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("ray").setLevel(logging.WARNING)
    began = time.monotonic()
    names = [tree.serving.name, *tree.serving.adapters]
    _say(f"starting Ray Serve for {tree.model.source}" + "".join(f"\n  + adapter {name}" for name in names[1:]))
    with local.serve_here(_ENGINE_PORT) as engine_url:
        _say("loading and warming up the engine")
        local.deploy(app.build(tree.model_dump(mode="json")))
        with (
            tempfile.TemporaryDirectory(prefix="haetsal-") as folder,
            local.gateway(_written(routes(tree, engine_url), Path(folder)), tree.serving.port) as process,
        ):
            url = f"http://{local.HOST}:{tree.serving.port}"
            _say(f"ready after {time.monotonic() - began:.0f} s: {url} (no API key is asked for: loopback only)")
            _say(_example(url))
            process.wait()
            raise EnvironmentNotReady(f"the gateway ended with code {process.returncode}; its words are above")


def _written(tree: dict[str, Any], folder: Path) -> Path:
    file = folder / "routes.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return file


def routes(tree: Settings, engine_url: str) -> dict[str, Any]:
    """The gateway's file: every model of the engine under its own name, and the newest adapter as `haetsal`."""
    names = [str(tree.serving.name), *tree.serving.adapters]
    known = (
        names if app.engine_of(tree) == "transformers" else [names[0], *(vllm.adapter_name(tree, n) for n in names[1:])]
    )
    backends = {
        name: {"urls": [engine_url], "model": inner, "health_path": "/-/healthz"}
        for name, inner in zip(names, known, strict=True)
    }
    served = {_PUBLIC_NAME: names[1] if len(names) > 1 else names[0]} | {name: name for name in names}
    models = {
        public: {"variants": [{"name": "champion", "backend": backend, "weight": 1}]}
        for public, backend in served.items()
    }
    return {
        "backends": backends,
        "models": models,
        "feedback": {"address": Storage(tree.storage.root).address("feedback")},
    }


def _example(url: str) -> str:
    body = f'{{"model": "{_PUBLIC_NAME}", "messages": [{{"role": "user", "content": "안녕하세요!"}}], "stream": true}}'
    command = f"curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"
    return f"open {url}/ for the chat page, or try\n  {command}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.main(main)
