"""What upstream's stream host says reaches the caller byte for byte, however it comes."""

import asyncio

import aiohttp
import pytest

from tests.support.event_streams import read_stream
from tests.support.http_calls import PATIENCE
from tests.support.polling import until
from tests.support.stack import OpenGateway, Stack
from tests.support.stream_host import DONE, HI, StreamHost, event, ids, open_stream, stream_host, stream_url

RECORDED = (
    "event: output\nid: 1698774369:0\ndata:\n\n"
    "event: output\nid: 1698774369:1\ndata:\n\n"
    "event: output\nid: 1698774370:0\ndata: Hello,\n\n"
    "event: output\nid: 1698774370:1\ndata:  wörld\n\n"
    "event: logs\nid: 1698774370:2\ndata: one\ndata:\ndata:   two\n\n"
    "event: output\nid: 1698774370:3\ndata: .\n\n"
    "event: output\nid: 1698774371:0\ndata:\n\n"
    "event: done\nid: 1698774371:1\ndata: {}\n\n"
).encode()
"""As upstream said it in October 2023, with a blank, a line break and a log where real streams have them."""
_SIZES = {"whole": 10_000, "in sevens": 7, "byte by byte": 1}
_LINE_ENDS = {"LF": b"\n", "CR LF": b"\r\n", "CR": b"\r"}


@pytest.mark.parametrize("size", _SIZES.values(), ids=_SIZES)
@pytest.mark.parametrize("line_end", _LINE_ENDS.values(), ids=_LINE_ENDS)
async def test_recorded_stream_is_relayed_byte_for_byte(gateway: Stack, size: int, line_end: bytes):
    """Every id, space and line break as upstream wrote it; only its comments are replaced by the gateway's."""
    recorded = RECORDED.replace(b"\n", line_end)
    async with stream_host(gateway.upstream) as (wire, _):
        await wire.say(*(recorded[at : at + size] for at in range(0, len(recorded), size)))
        relayed = await read_stream(gateway, await stream_url(gateway))
    assert relayed.body.startswith(HI)
    said = relayed.body.removeprefix(HI)
    if line_end == b"\r\n":
        # Of a CR LF that came in halves the LF belongs to what follows: before the first event, and after the last.
        said, recorded = said.strip(b"\r\n"), recorded.strip(b"\r\n")
    assert said == recorded


async def test_stream_response_is_not_cached_compressed_or_logged(gateway: Stack):
    """Caches, proxies and other sites' logs do not keep it, whatever the client accepts."""
    async with stream_host(gateway.upstream) as (wire, host):
        await wire.say(event(0), DONE)
        reply = await read_stream(gateway, await stream_url(gateway), **{"Accept-Encoding": "gzip, br"})
        assert b"authorization" not in host.heads[0].lower()
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["Cache-Control"] == "no-store, no-transform"
    assert reply.headers["X-Accel-Buffering"] == "no"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert "Content-Encoding" not in reply.headers


async def test_connection_is_reused_after_a_stream(gateway: Stack):
    """A stream that ended properly leaves the connection usable."""
    made: list[None] = []
    trace = aiohttp.TraceConfig()

    async def note(*_: object) -> None:
        made.append(None)

    trace.on_connection_create_end.append(note)
    async with stream_host(gateway.upstream) as (wire, _), aiohttp.ClientSession(trace_configs=[trace]) as session:
        await wire.say(event(0), DONE)
        url = await stream_url(gateway)
        for _ in range(3):
            async with session.get(url) as response:
                assert (await response.read()).endswith(DONE)
    assert len(made) == 1


async def test_http_1_0_proxy_gets_the_same_stream(gateway: Stack):
    """Nginx uses HTTP/1.0 by default: no chunks, and the connection's end is the stream's."""
    async with stream_host(gateway.upstream) as (wire, _):
        url = await stream_url(gateway)
        path = url.removeprefix(gateway.origin)
        reader, writer = await asyncio.open_connection(*_address(gateway))
        writer.write(f"GET {path} HTTP/1.0\r\nHost: gateway.test\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert await reader.readexactly(len(HI)) == HI
        await wire.say(event(0))
        assert await reader.readexactly(len(event(0))) == event(0)
        await wire.say(DONE)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == DONE
        writer.close()
        await writer.wait_closed()


async def test_lost_upstream_connection_is_resumed_unnoticed(gateway: Stack):
    """Upstream's connection drops between two tokens; the gateway resumes after the last one."""
    async with stream_host(gateway.upstream) as (wire, host), open_stream(await stream_url(gateway)) as caller:
        await wire.say(event(0), event(1))
        await caller.until(event(1))
        await _drop(wire)
        await wire.say(event(2), DONE)
        assert await caller.rest() == HI + event(0) + event(1) + event(2) + DONE
        assert wire.connections == 2
        assert b"Last-Event-ID: 10:1\r\n" in host.heads[1]


async def test_partial_event_is_never_relayed(gateway: Stack):
    """The connection drops inside an event: readers get it once, whole, from the next connection."""
    async with stream_host(gateway.upstream) as (wire, _), open_stream(await stream_url(gateway)) as caller:
        await wire.say(event(0), event(1, "first half")[:-8])
        await caller.until(event(0))
        await _drop(wire)
        wire.said.pop()
        await wire.say(event(1, "whole"), DONE)
        assert await caller.rest() == HI + event(0) + event(1, "whole") + DONE


async def test_reader_that_returns_after_the_end_gets_204(gateway: Stack):
    """An EventSource that its page never closes reconnects forever, unless it gets a 204."""
    async with stream_host(gateway.upstream) as (wire, _):
        await wire.say(event(0), DONE)
        url = await stream_url(gateway)
        last = ids((await read_stream(gateway, url)).body)[-1].decode()
        again = await read_stream(gateway, url, **{"Last-Event-ID": last})
        assert (again.status, again.body) == (204, b"")
        assert (await read_stream(gateway, url)).status == 200


async def test_missing_events_are_reported_as_an_error(open_gateway: OpenGateway):
    """A text that begins in the middle, or has a gap, looks like a text: neither is sent."""
    async with open_gateway(streams={"max_log_bytes": 4096}) as stack, stream_host(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with open_stream(url) as caller:
            for number in range(100):
                await wire.say(event(number, "x" * 100))
            await caller.until(event(99, "x" * 100))
            assert len(ids(caller.body)) == 100, "who is up to date misses nothing"
            for headers in ({}, {"Last-Event-ID": "10:3"}, {"Last-Event-ID": "9:0"}, {"Last-Event-ID": "never-was"}):
                reported = await read_stream(stack, url, **headers)
                error, done = reported.body.removeprefix(HI).strip().split(b"\n\n")
                assert error.startswith(b"event: error\nid: ")
                assert b'data: {"detail":"' in error
                assert done.startswith(b"event: done\n")
                assert done.endswith(b'data: {"reason":"error"}')
                end = ids(reported.body)[-1].decode()
                assert (await read_stream(stack, url, **{"Last-Event-ID": end})).status == 204
            async with open_stream(url, Last_Event_ID="10:98") as resumed:
                assert await resumed.until(event(99, "x" * 100)) == HI + event(99, "x" * 100)


async def _drop(wire: StreamHost) -> None:
    """Let upstream's line drop, and stand again for the next who asks."""
    wire.is_over = True
    await wire.say()
    await until(lambda: not wire.open)
    wire.is_over = False


def _address(stack: Stack) -> tuple[str, int]:
    host, _, port = stack.origin.removeprefix("http://").partition(":")
    return host, int(port)
