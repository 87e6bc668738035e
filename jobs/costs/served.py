"""What serving has cost: its tokens and its machines, as Prometheus has seen them."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from datetime import UTC, date, datetime, timedelta
from typing import Any

from jobs.errors import RemoteError, UsageError

_TIMEOUT_S = 30.0
_TOKENS = "sum(increase(haetsal_gateway_tokens_total[{s}s]))"
_MACHINE_MINUTES = 'sum(count_over_time(ray_node_cpu_count{{ray_io_group="inference"}}[{s}s:1m]))'


def ask(url: str, first: date, last: date, usd_per_hour: float | None) -> dict[str, Any]:
    """Tokens, machine hours and USD per million tokens from the first day to the last, both included.

    Raises UsageError without a price, RemoteError where Prometheus does not answer.
    """
    if usd_per_hour is None:
        raise UsageError("cost.usd_per_hour.inference: is not set, and serving has no cost without it")
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    at_s = min(end.timestamp(), time.time())
    seconds = int(at_s - begin)
    tokens = _instant(url, _TOKENS.format(s=seconds), at_s)
    hours = _instant(url, _MACHINE_MINUTES.format(s=seconds), at_s) / 60
    usd = hours * usd_per_hour
    each = usd / tokens * 1e6 if tokens else None
    return {"tokens": tokens, "machine_hours": hours, "usd": usd, "usd_per_million_tokens": each}


def _instant(url: str, query: str, at_s: float) -> float:
    """One number; 0 where there is no series."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: is no address of Prometheus; it begins with http:// or https://")
    asked = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query, 'time': at_s})}"
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as answer:
            result = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError) as error:
        raise RemoteError(f"Prometheus at {url}: {error}") from None
    return float(result[0]["value"][1]) if result else 0.0
