"""`gateway check --stream URL`: test whether event streams arrive intact from a gateway.

The probe stream is read with aiohttp-sse-client. Its events are short lines of JSON with a name and an id, so the
limits of that client do not matter. The client reconnects after the stream has ended; `_Ended` prevents that. A trace
of the client's session records status and headers of the response, which the client does not expose.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp_sse_client.client import READY_STATE_CONNECTING, EventSource

from gateway.streams.rules import probe, probe_findings
from gateway.streams.rules.probe import Hello, Tick
from gateway.streams.rules.probe_findings import Arrival, Finding, Level, Reading

CONNECT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 20.0
"""How much longer than planned a probe may take."""
_decode_hello = msgspec.json.Decoder(Hello).decode
_decode_tick = msgspec.json.Decoder(Tick).decode


class _Ended(Exception):
    """The stream has ended: do not reconnect."""


async def check_stream(url: str, silence: int | None) -> list[Finding]:
    """Read two probe streams and evaluate them; with `silence`, a third that is idle for so many seconds."""
    base = probe.base_at(url)
    first = await read(base)
    if finding := probe_findings.refused(first):
        return [finding]
    second = await read(base)
    if finding := probe_findings.refused(second):
        return [finding]
    findings = list(probe_findings.judge(first, second, base))
    findings.append(await _version(base))
    if silence:
        findings.append(probe_findings.outlasted(await read(base, silence), silence))
    return findings


async def read(base: str, silence: int = 0) -> Reading:
    """Read one probe stream until it ends or fails."""
    seen = _Seen()
    total = probe.EVENTS * probe.SPACING_SECONDS + silence + PATIENCE_SECONDS
    timeout = aiohttp.ClientTimeout(total=total, connect=CONNECT_SECONDS)
    nonce = secrets.token_hex(8)
    query = f"?seconds={silence}" if silence else ""
    is_complete, error, began = False, "", time.monotonic()
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False, trace_configs=[seen.trace()]) as session:
        source: EventSource = EventSource(
            f"{base}{probe.PATH}{query}",
            session=session,
            max_connect_retry=0,
            on_error=lambda: _stop(source),
            headers={"Last-Event-ID": nonce},
            allow_redirects=False,
        )
        try:
            async with source:
                async for event in source:
                    if event.type == "done":
                        is_complete = True
                        break
                    seen.take(event.type, event.data, time.monotonic() - began)
        except _Ended:
            error = "it ended early"
        except TimeoutError:
            error = f"it did not end within {total:.0f} s"
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            error = str(problem) or type(problem).__name__
        finally:
            seen.close()
    return Reading(
        nonce=nonce,
        status=seen.status,
        headers=seen.headers,
        hello=seen.hello,
        arrivals=seen.arrivals,
        is_complete=is_complete and len(seen.arrivals) >= probe.EVENTS,
        seconds=time.monotonic() - began,
        error=error,
    )


def _stop(source: EventSource) -> None:
    # Also called before a refusal is raised; then there is no reconnect to stop.
    if source.ready_state == READY_STATE_CONNECTING:
        raise _Ended


class _Seen:
    """Records the response and events of one connection."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.hello: Hello | None = None
        self.arrivals: list[Arrival] = []
        self._response: aiohttp.ClientResponse | None = None

    def trace(self) -> aiohttp.TraceConfig:
        """Return a trace that records status and headers of the response."""
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._note)
        return config

    async def _note(self, _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        self._response = params.response
        self.status, self.headers = params.response.status, list(params.response.headers.items())

    def take(self, name: str | None, data: str, came: float) -> None:
        """Record an event. Raise `ValueError` if its data is not that of a probe."""
        if name == probe.HELLO:
            self.hello = _decode_hello(data)
            self.arrivals.append(Arrival(0.0, came))
        elif name == probe.TICK:
            self.arrivals.append(Arrival(_decode_tick(data).at, came))

    def close(self) -> None:
        """Close the response: the client leaves a refused one open."""
        if self._response is not None:
            self._response.close()


async def _version(base: str) -> Finding:
    """Report which version of HTTP the server offers to browsers."""
    parts = urlsplit(base)
    few = "a browser opens at most six streams to one host, across all tabs"
    if parts.scheme == "http":
        return Finding(Level.WELL, "version", f"HTTP/1.1, because there is no TLS: {few}")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with asyncio.timeout(CONNECT_SECONDS):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    if chosen == "h2":
        return Finding(Level.WELL, "version", "HTTP/2 is offered")
    return Finding(Level.NOTE, "version", f"HTTP/2 is not offered: {few}. nginx: `listen 443 ssl http2`")


def lines(findings: list[Finding]) -> Iterator[tuple[str, bool]]:
    """Format the findings; the flag says whether a line goes to stdout."""
    for finding in findings:
        match finding.level:
            case Level.WELL:
                yield f"{finding.name:<10} {finding.text}", True
            case Level.NOTE:
                yield f"warning: {finding.name}: {finding.text}", False
            case Level.BAD:
                yield f"{finding.name}: {finding.text}", False
