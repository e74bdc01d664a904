"""What aiohttp-sse-client 0.2.1 cannot do, and why the relay cuts streams itself: `gateway/streams/rules/sse.py`,
feasibility 1.

Each test shows one limit as it is. A failure is good news: the package has mended it. Then say so in the docstring of
`gateway/streams/rules/sse.py`, and when no limit is left that matters there, let the package do the work.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponse, ClientSession, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp_sse_client import client
from aiohttp_sse_client.client import EventSource, MessageEvent

from gateway.streams.rules.sse import EventSplitter

MENDED = "aiohttp-sse-client has mended this: say so in gateway/streams/rules/sse.py"
A_MOMENT = 0.15
"""How long to wait for what is not to come."""


@dataclass
class Answer:
    """What one connection gets: a status, bytes, and an end that is clean, cut, or does not come."""

    body: bytes = b""
    status: int = 200
    is_cut: bool = False
    is_held: bool = False


@dataclass
class Server:
    """Answers connections in turn, the last answer again and again."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[web.BaseRequest] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        if answer.status != 200 and not answer.is_held:
            return web.Response(status=answer.status)  # nothing to be read, so that no connection is left open
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(answer.body)
        if answer.is_held:
            await self.closing.wait()
        if answer.is_cut:
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/"
    yield server
    server.closing.set()
    await runner.cleanup()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the package slept before each reconnect; it does not really."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(client, "asyncio", SimpleNamespace(sleep=sleep))
    return slept


@contextmanager
def still_raises(error: type[Exception], text: str = "") -> Iterator[None]:
    """Like `pytest.raises`, but what does not fail any more is said to be mended."""
    said = None
    try:
        yield
    except error as raised:
        said = str(raised)
    assert said is not None, MENDED
    assert text in said


async def read(server: Server, count: int, **settings: Any) -> list[MessageEvent]:
    """Read so many events with the package. It is lent a session, since it leaves its own open where it fails."""
    async with ClientSession() as session, EventSource(server.url, session=session, **settings) as source:
        return [await anext(source) for _ in range(count)]


async def read_one(server: Server, body: bytes) -> MessageEvent:
    """Read the one event of a stream that stays open."""
    server.answers = [Answer(body, is_held=True)]
    return (await read(server, 1))[0]


def data_of(body: bytes) -> list[str]:
    """Read with the gateway's own."""
    return [event.data() for event in EventSplitter(2_000_000).feed(body) if event.has_data()]


async def test_plain_streams_are_read(server: Server):
    """What the gateway's tests and tools use it for: names, ids, data of several lines, comments, CR LF."""
    server.answers = [
        Answer(
            b": hi\r\n\r\nevent: output\r\nid: 1:0\r\ndata: a\r\ndata: b\r\n\r\nevent: done\ndata: {}\n\n", is_held=True
        )
    ]
    events = await read(server, 2)
    assert [(event.type, event.last_event_id, event.data) for event in events] == [
        ("output", "1:0", "a\nb"),
        ("done", "1:0", "{}"),
    ]


async def test_client_reconnects_with_last_event_id(server: Server, waits: list[float]):
    """As a browser would, after a clean end."""
    server.answers = [Answer(b"id: 1:0\ndata: a\n\n"), Answer(b"id: 1:1\ndata: b\n\n", is_held=True)]
    assert [event.data for event in await read(server, 2)] == ["a", "b"]
    assert [request.headers.get("Last-Event-ID") for request in server.requests] == [None, "1:0"]


async def test_limit_1_strips_the_leading_space_of_a_token(server: Server):
    """` world` becomes `world`, and a text loses its spaces."""
    body = b"event: output\nid: 1:0\ndata:  world\n\n"
    assert (await read_one(server, body)).data == "world", MENDED
    assert data_of(body) == [" world"]


async def test_limit_2_strips_line_breaks_at_the_end_of_a_token(server: Server):
    """Paragraphs run into each other."""
    body = b"data: a\ndata:\n\n"
    assert (await read_one(server, body)).data == "a", MENDED
    assert data_of(body) == ["a\n"]


async def test_limit_3_fails_on_long_lines(server: Server):
    """A picture as a data URI ends the stream, unless the caller passes a session with a larger buffer."""
    body = b"data: " + b"A" * 600_000 + b"\n\n"
    with still_raises(LineTooLong):
        await read_one(server, body)
    assert data_of(body) == ["A" * 600_000]


async def test_limit_4_waits_forever_where_lines_end_with_cr(server: Server):
    """The standard has three line ends."""
    body = b"data: a\r\rdata: b\r\r"
    with still_raises(TimeoutError):
        async with asyncio.timeout(A_MOMENT):
            await read_one(server, body)
    assert data_of(body) == ["a", "b"]


async def test_limit_5_loses_the_first_field_to_a_byte_order_mark(server: Server):
    """The standard drops the mark."""
    body = b"\xef\xbb\xbfdata: a\n\ndata: b\n\n"
    assert (await read_one(server, body)).data == "b", MENDED
    assert data_of(body) == ["a", "b"]


async def test_limit_6_fails_at_an_invalid_byte(server: Server):
    """The standard's reader sees U+FFFD and goes on."""
    body = b"data: a\xff\n\n"
    with still_raises(UnicodeDecodeError):
        await read_one(server, body)
    assert data_of(body) == ["a\ufffd"]


async def test_limit_7_accepts_an_id_with_nul(server: Server):
    """It cannot be sent back in a header; the standard ignores such an id."""
    body = b"id: 2\x003\ndata: a\n\n"
    assert (await read_one(server, body)).last_event_id == "2\x003", MENDED
    assert EventSplitter(100).feed(body)[0].id is None


async def test_limit_8_joins_a_partial_event_to_the_next_connection(server: Server, waits: list[float]):
    """The text gets a piece twice, under another name and id."""
    server.answers = [Answer(b"event: logs\nid: 1:1\ndata: half\n"), Answer(b"data: whole\n\n", is_held=True)]
    (event,) = await read(server, 1)
    assert (event.type, event.last_event_id, event.data) == ("logs", "1:1", "half\nwhole"), MENDED
    splitter = EventSplitter(100)
    assert splitter.feed(server.answers[0].body) == []
    splitter.reset()
    assert [(each.name, each.id) for each in splitter.feed(server.answers[1].body)] == [("message", None)]


async def test_limit_9_ends_at_a_truncated_body(server: Server, waits: list[float]):
    """A lost connection is what reconnects are for."""
    server.answers = [Answer(b"data: a\n\n", is_cut=True), Answer(b"data: b\n\n", is_held=True)]
    with still_raises(ClientPayloadError):
        await read(server, 2)


@pytest.mark.parametrize("status", [429, 503])
async def test_limit_10_ends_at_a_busy_server_on_reconnect(server: Server, waits: list[float], status: int):
    """A deployment in mid-stream; `Retry-After` is ignored."""
    server.answers = [Answer(b"data: a\n\n"), Answer(status=status), Answer(b"data: b\n\n", is_held=True)]
    with still_raises(ConnectionError, str(status)):
        await read(server, 2)


async def test_limit_10_raises_on_no_content_at_first(server: Server):
    """To the standard, 204 is a server that has no more to send."""
    server.answers = [Answer(status=204)]
    with still_raises(ConnectionAbortedError, "204"):
        await read(server, 0)


async def test_limit_11_reconnects_forever_after_the_end(server: Server, waits: list[float]):
    """Replicate ends a stream with `done`; a caller cannot tell the client that this was the end."""
    server.answers = [Answer(b'event: done\nid: 1:1\ndata: {}\n\n')]  # fmt: skip
    assert [event.type for event in await read(server, 4)] == ["done"] * 4, MENDED
    assert len(server.requests) == 4, MENDED


@pytest.mark.parametrize(("retry", "waited"), [(b"50", 0.1), (b"-5", -0.01)])
async def test_limit_12_ignores_the_retry_field(server: Server, waits: list[float], retry: bytes, waited: float):
    """It waits twice as long; and for a negative number, which the standard ignores, not at all: a busy loop."""
    server.answers = [Answer(b"retry: " + retry + b"\ndata: a\n\n")]
    await read(server, 2, reconnection_time=timedelta(seconds=1))
    assert waits == [pytest.approx(waited)], MENDED


async def test_limit_13_changes_the_callers_headers(server: Server, waits: list[float]):
    """Headers that two streams share take the last event id of one to the other's server."""
    server.answers = [Answer(b"id: 1:1\ndata: a\n\n")]
    headers: dict[str, str] = {}
    await read(server, 2, headers=headers)
    assert headers == {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Last-Event-Id": "1:1"}, MENDED


async def test_limit_14_cuts_a_stream_after_five_minutes(server: Server):
    """Its own session has aiohttp's timeout for whole requests; longer runs are cut off."""
    server.answers = [Answer(is_held=True)]
    async with EventSource(server.url) as source:
        assert source._session.timeout.total == 300, MENDED


async def test_limit_14_leaves_a_refused_connection_open(server: Server):
    """Until garbage collection, and each attempt takes one more of the pool."""
    server.answers = [Answer(b"busy", status=503, is_held=True)]
    async with ClientSession() as session:
        responses: list[ClientResponse] = []

        async def request(*arguments: Any, **settings: Any) -> ClientResponse:
            responses.append(await session.request(*arguments, **settings))
            return responses[-1]

        source = EventSource(server.url, session=SimpleNamespace(request=request))
        with pytest.raises(ConnectionError, match="503"):
            await source.connect()
        assert responses[0].connection is not None, MENDED
        responses[0].close()
