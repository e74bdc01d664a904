"""Traces: what an operator sees of a request in them, and what nobody does."""

import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway import __version__
from gateway.simulator import Fault, Simulator
from gateway.tracing import OtelTracer
from tests.support.access_log import AccessLog, create_story
from tests.support.http_calls import ask
from tests.support.polling import until
from tests.support.secret_scanner import LogScanner, SecretScanner
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """The spans that have ended."""
    return InMemorySpanExporter()


@pytest.fixture
def propagate() -> bool:
    """Whether upstream gets trace headers."""
    return False


@pytest.fixture
def tracer(spans: InMemorySpanExporter, propagate: bool) -> OtelTracer:
    """A tracer that keeps them here; made before the loop runs, as making one blocks."""
    return OtelTracer(SimpleSpanProcessor(spans), propagate=propagate)


@pytest.fixture
async def traced(open_gateway: OpenGateway, tracer: OtelTracer) -> AsyncIterator[Stack]:
    """A gateway that keeps traces."""
    async with open_gateway(tracer=tracer) as stack:
        yield stack


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


async def test_create_has_spans_for_its_steps_and_calls(traced: Stack, spans: InMemorySpanExporter):
    """The request, its outcome, and each upstream call it caused are nested."""
    await create_story(traced, seed=1, wait=True)
    request, create = named(spans, "POST /predictions"), named(spans, "create")
    call = named(spans, "predictions.create")
    assert (request.kind, call.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert parent_of(request) is None
    assert parent_of(create) == request.context.span_id
    assert parent_of(call) == create.context.span_id
    assert attributes(request) == {
        "http.request.method": "POST", "http.route": "/predictions", "http.response.status_code": 201,
        "gateway.team": "alpha", "gateway.cache": "miss",
    }  # fmt: skip
    assert attributes(create) == {"gateway.cache": "miss"}
    assert attributes(call) == {"http.request.method": "POST", "http.response.status_code": 201}


async def test_hit_and_join_spans_have_no_upstream_call(traced: Stack, spans: InMemorySpanExporter):
    """They are named for what they are and have no child call."""
    await create_story(traced, seed=1, wait=True)
    await create_story(traced, seed=2, token_delay=1)
    spans.clear()
    await create_story(traced, seed=1)
    await create_story(traced, seed=2, token_delay=1)
    assert [span.name for span in spans.get_finished_spans()] == [
        "hit", "POST /predictions", "join", "POST /predictions",
    ]  # fmt: skip


async def test_request_continues_the_callers_trace(traced: Stack, spans: InMemorySpanExporter, access_log: AccessLog):
    """One trace from the caller's page to the upstream call, and log lines carry its id."""
    await ask(traced, "GET", "/v1/account", headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    span = named(spans, "GET /account")
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{parent_of(span):016x}" == PARENT
    assert access_log.of("account.get")["trace_id"] == TRACE


@pytest.mark.parametrize("bad", ["nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more"])
async def test_invalid_traceparent_starts_a_new_trace(traced: Stack, spans: InMemorySpanExporter, bad: str):
    """A caller's header is validated before it is used."""
    await ask(traced, "GET", "/v1/account", headers={"traceparent": bad})
    span = named(spans, "GET /account")
    assert parent_of(span) is None
    assert f"{span.context.trace_id:032x}" != TRACE


async def test_failures_are_marked_on_their_spans(traced: Stack, spans: InMemorySpanExporter, upstream: Simulator):
    """Errors of upstream and of the gateway, by name; a refusal is no failure of the gateway."""
    upstream.faults.set(Fault("insufficient_credit", operation="*"))
    await create_story(traced)
    assert attributes(named(spans, "create")) == {"error.type": "402"}
    assert named(spans, "POST /predictions").status.status_code is StatusCode.UNSET
    spans.clear()
    upstream.faults.set(Fault("token_revoked"))
    await create_story(traced)
    assert attributes(named(spans, "create"))["error.type"] == "UpstreamTokenRefused"
    failed = [span for span in spans.get_finished_spans() if span.status.status_code is StatusCode.ERROR]
    assert {span.name for span in failed} == {"POST /predictions", "create", "predictions.create"}
    assert all(span.events == () for span in failed), "an exception's text may hold a part of an input"


async def test_spans_contain_no_input_id_or_secret(
    traced: Stack, spans: InMemorySpanExporter, secret_scanner: SecretScanner, upstream: Simulator
):
    """Traces may go to people who may not read what teams ask for."""
    body = {"version": version_of(upstream, "acme/storyteller"), "input": {"prompt": "the secret garden"}}
    created = (await ask(traced, "POST", "/v1/predictions", json=body)).json
    await ask(traced, "GET", f"/v1/predictions/{created['id']}")
    await ask(traced, "GET", created["urls"]["stream"].removeprefix(traced.origin), key=None)
    await ask(traced, "GET", "/v1/nothing/of/the/kind?token=r8_0123456789abcdef", key=None)
    await until(lambda: any(span.name.startswith("GET /streams") for span in spans.get_finished_spans()))
    reported = "".join(span.to_json() for span in spans.get_finished_spans())
    secret_scanner.scan("a span", reported.encode())
    for secret in ("secret garden", created["id"], created["urls"]["stream"], "r8_0123", "of/the/kind"):
        assert secret not in reported
    assert "GET /streams/{ticket}" in reported


async def test_background_polls_make_no_spans(traced: Stack, spans: InMemorySpanExporter):
    """A run is followed for hours; its polls would bury the callers' requests."""
    await create_story(traced, wait=True)
    assert traced.upstream.requests.count("predictions.get") > 0
    assert "predictions.get" not in {span.name for span in spans.get_finished_spans()}


@pytest.mark.parametrize("propagate", [False, True])
async def test_trace_headers_go_upstream_only_if_enabled(
    traced: Stack, spans: InMemorySpanExporter, upstream: Simulator, propagate: bool
):
    """Replicate learns nothing about the caller unless the operator enables it; `tracestate` is never sent."""
    await ask(traced, "GET", "/v1/hardware", headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    (seen,) = [each for each in upstream.requests if each.operation == "hardware.list"]
    assert "tracestate" not in seen.headers
    if propagate:
        span = named(spans, "hardware.list")
        assert seen.headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    else:
        assert "traceparent" not in seen.headers


async def test_trace_id_is_logged_without_tracing(gateway: Stack, access_log: AccessLog, upstream: Simulator):
    """It goes nowhere else; an invalid one is not logged."""
    await ask(gateway, "GET", "/v1/hardware", headers={"traceparent": TRACEPARENT})
    assert access_log.of("hardware.list")["trace_id"] == TRACE
    assert all("traceparent" not in seen.headers for seen in upstream.requests)
    access_log.lines.clear()
    await ask(gateway, "GET", "/v1/hardware", headers={"traceparent": "r8_0123456789abcdef"})
    assert "trace_id" not in access_log.of("hardware.list")


def test_disabled_tracing_does_not_import_opentelemetry():
    """The extra may be missing; where it is installed, it costs nothing."""
    code = "import sys, gateway.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


async def test_shutdown_does_not_wait_for_the_collector(
    open_gateway: OpenGateway, log_scanner: LogScanner, monkeypatch: pytest.MonkeyPatch
):
    """A gateway whose collector is down stops like any other and leaves no retry behind."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    async with open_gateway(tracing={"enabled": True}) as stack:
        assert (await ask(stack, "GET", "/v1/account")).status == 200
    assert not [thread.name for thread in threading.enumerate() if "Otel" in thread.name or thread.name == "traces"]
    # The exporter says that it has lost spans.
    log_scanner.errors.clear()


async def test_spans_are_exported_to_the_collector(open_gateway: OpenGateway, monkeypatch: pytest.MonkeyPatch):
    """OpenTelemetry's own variables name the address; the service has its name and version."""
    received: list[ExportTraceServiceRequest] = []

    async def collect(request: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    async with TestServer(app) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(collector.make_url("")))
        async with open_gateway(tracing={"enabled": True}) as stack:
            await ask(stack, "GET", "/v1/account")
    (resource,) = received[0].resource_spans
    reported = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (reported["service.name"], reported["service.version"]) == ("replicate-gateway", __version__)
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["GET /account"]
