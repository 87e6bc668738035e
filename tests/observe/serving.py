"""`python tests/observe/serving.py MODEL STORAGE`: the Serve application on the cluster of RAY_ADDRESS.

It is asked again and again until standard input has something or ends.
"""

from __future__ import annotations

import select
import sys

import httpx

from jobs.serving import app, local

if __name__ == "__main__":
    model, storage = sys.argv[1:]
    serving = {"context_tokens": 512, "most_rows": 2, "cpus_per_replica": 0.5, "autoscaling": {"max_replicas": 2}}
    with local.serve_here(0) as url:
        local.deploy(app.build({"model": {"source": model}, "storage": {"root": storage}, "serving": serving}))
        question = {"model": "tiny", "messages": [{"role": "user", "content": "안녕"}], "max_tokens": 2}
        while not select.select([sys.stdin], [], [], 0.5)[0]:
            httpx.post(f"{url}/v1/chat/completions", json=question, timeout=60).raise_for_status()
