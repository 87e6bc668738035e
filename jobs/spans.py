"""OpenTelemetry spans: where the time of a request went, across processes. Off unless somebody collects.

OTEL_EXPORTER_OTLP_ENDPOINT, the standard variable, turns it on and says where to; the other OTEL_ variables mean what
OpenTelemetry says. A span holds names, sizes and statuses, never a prompt, an answer, a key or a message of an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.errors import EnvironmentNotReady

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HEADER = "traceparent"


class Spans:
    """The spans of one process. Sent in the background, and lost where nobody takes them: work never waits for it."""

    def __init__(self, service: str) -> None:
        """Raises EnvironmentNotReady where it is turned on and not installed."""
        self._tracer = _start(service) if os.environ.get(ENDPOINT) else None

    @contextmanager
    def span(
        self, name: str, parent: Span | Mapping[str, str] | None = None, **attributes: str | int | float
    ) -> Iterator[Span | None]:
        """A span for as long as the block lasts; None where it is off. `parent` may be the headers of a request."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import Status, StatusCode

        span = self._tracer.start_span(name, _context(parent), attributes=attributes)
        try:
            yield span
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()


def headers(span: Span | None) -> dict[str, str]:
    """What makes the next process's spans children of this one (W3C Trace Context)."""
    if span is None:
        return {}
    it = span.get_span_context()
    return {_HEADER: f"00-{it.trace_id:032x}-{it.span_id:016x}-{it.trace_flags:02x}"}


def _context(parent: Span | Mapping[str, str] | None) -> Context:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if parent is None:
        return Context()
    if isinstance(parent, trace.Span):
        return trace.set_span_in_context(parent, Context())
    return TraceContextTextMapPropagator().extract({_HEADER: parent.get(_HEADER, "")}, Context())


def _start(service: str) -> Tracer:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise EnvironmentNotReady(
            f"{ENDPOINT} is set, but {error.name} is not installed; `make setup` installs it, and without the variable "
            "nothing is traced"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("haetsal")
