"""What Prometheus is told. Labels come from the config and from key ids alone, so their number is bounded."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PREFIX = "haetsal_gateway_"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(_PREFIX + name, what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, what, labels, registry=registry)

        def seconds(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(_PREFIX + name, what, labels, registry=registry, buckets=_SECONDS)

        self.requests = counter(
            "requests_total", "Completions by answer; 499: the client left", "model", "variant", "status", "key"
        )
        self.duration = seconds("request_duration_seconds", "Of a good answer, to its last byte", "model", "variant")
        self.first_token = seconds("time_to_first_token_seconds", "Of a stream, to its first event", "model", "variant")
        self.tokens = counter("tokens_total", "Tokens by kind: prompt, completion", "model", "variant", "kind", "key")
        self.active = gauge("active_requests", "Requests in work at a backend", "backend")
        self.queued = gauge("queued_requests", "Requests that wait for a place at a backend", "backend")
        self.retries = counter("retries_total", "Tries that failed before the first byte", "backend", "reason")
        self.variant_failures = counter(
            "variant_failures_total", "Requests that a variant could not answer; another may have", "model", "variant"
        )
        self.cuts = counter("stream_cuts_total", "Streams that ended with an error event", "model", "variant", "reason")
        self.ejected = gauge("ejected_urls", "Addresses of a backend that are passed over for now", "backend")
        self.shadow = counter("shadow_requests_total", "Copies by outcome: ok, failed, skipped", "model", "outcome")
        self.shadow_duration = seconds("shadow_duration_seconds", "Of a copy's good answer", "model")
        self.feedback = counter("feedback_total", "Feedback by thumb: up, down, none", "model", "variant", "thumb")
        self.reloads = counter("config_reloads_total", "Changed files by result: taken, refused", "result")
        self.refused = gauge("config_refused", "1 while the newest files are refused and older ones are in force")
