"""OpenTelemetry tracing: implements `gateway.domain.ports.tracing.Tracer` with the SDK from the extra `otel`.

OpenTelemetry's environment variables (OTEL_…) configure the exporter, the sampling and the service name.
"""

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.domain import trace_context
from gateway.domain.ports.tracing import NO_SPAN, Call, Span, Tracer

_SERVICE: Final = "replicate-gateway"
_MAX_CLOSE_SECONDS: Final = 2.0
_CLIENT_ERROR: Final = 400


class _OtelSpan:
    """A span of a request or a step in it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id: str | None = trace.format_trace_id(span.get_span_context().trace_id)

    def end_as(self, name: str, attributes: Mapping[str, str | int]) -> None:
        """Set the final name and attributes. `error.type` among them marks the span as failed."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if "error.type" in attributes:
            self._span.set_status(trace.StatusCode.ERROR)


class _OtelCall:
    """The span of a call to upstream, with the headers that propagate it."""

    def __init__(self, span: trace.Span, *, propagate: bool) -> None:
        self._span = span
        self.headers: Mapping[str, str] = {}
        if propagate:
            context = span.get_span_context()
            trace_id, span_id = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
            is_sampled = context.trace_flags.sampled
            self.headers = {"traceparent": trace_context.write(trace_id, span_id, is_sampled=is_sampled)}

    def ended(self, outcome: str) -> None:
        """End the span. `outcome` is an HTTP status, or the kind of failure."""
        if outcome.isdecimal():
            self._span.set_attribute("http.response.status_code", int(outcome))
        if not outcome.isdecimal() or int(outcome) >= _CLIENT_ERROR:
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class OtelTracer:
    """Opens spans with the SDK. With `propagate`, calls to upstream carry the `traceparent` of their span.

    The constructor blocks, because the SDK detects the resources that it runs on.
    """

    def __init__(self, processor: SpanProcessor | None = None, *, propagate: bool = False) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE)
        resource = Resource.create({"service.name": name, "service.version": __version__})
        # `close` shuts it down. At the interpreter's exit it would wait longer than a shutdown may take.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter: OTLPSpanExporter | None = None
        if processor is None:
            self._exporter = OTLPSpanExporter()
            processor = BatchSpanProcessor(self._exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_SERVICE, __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._propagate = propagate

    @contextmanager
    def request(self, method: str, traceparent: str | None, tracestate: str | None) -> Iterator[Span]:
        """Open the span of an incoming request."""
        given = {"traceparent": traceparent} if traceparent and trace_context.parse(traceparent) else {}
        if given and tracestate:
            given["tracestate"] = tracestate
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(given),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": method},
        )
        with _current(span):
            yield _OtelSpan(span)

    @contextmanager
    def step(self, name: str) -> Iterator[Span]:
        """Open a child of the current span."""
        with _current(self._tracer.start_span(name)) as span:
            yield _OtelSpan(span)

    def call(self, operation: str, method: str) -> Call:
        """Open the span of a call to upstream, if it is made within a request."""
        if not trace.get_current_span().is_recording():
            return NO_SPAN
        attributes = {"http.request.method": method}
        span = self._tracer.start_span(operation, kind=trace.SpanKind.CLIENT, attributes=attributes)
        return _OtelCall(span, propagate=self._propagate)

    async def close(self) -> None:
        """Export the remaining spans, within two periods of `_MAX_CLOSE_SECONDS`; discard the rest."""
        # A daemon thread, so that an unreachable collector does not delay the exit of the process.
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, _MAX_CLOSE_SECONDS)
        if thread.is_alive() and self._exporter is not None:
            # Stops the exporter's retries.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(thread.join, _MAX_CLOSE_SECONDS)


@contextmanager
def _current(span: trace.Span) -> Iterator[trace.Span]:
    """Make a span the current one. Exceptions are not recorded, because their text may contain a caller's input."""
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


if TYPE_CHECKING:
    _: type[Tracer] = OtelTracer
