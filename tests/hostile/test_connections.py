"""Slow bodies, large heads, half-closed connections, callers who leave: correct ones are served."""

import asyncio
import json
import re
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.support.http_calls import (
    PAGE,
    PATIENCE,
    Reply,
    ask,
    assert_problem,
    connection,
    metrics_of,
    parse,
    raw_request,
    send_raw,
    until_metric,
)
from tests.support.polling import attempts
from tests.support.samples import FORM, content, create, form
from tests.support.simulator_models import hold_runs
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack
from tests.support.system_clocks import PausedClock
from tests.support.upstream import creates, version_of

JSON = ("Content-Type", "application/json")


async def read_answer(reader: asyncio.StreamReader) -> Reply:
    """Read one answer, to the end of the connection."""
    async with asyncio.timeout(PATIENCE):
        return parse(await reader.read())


def story(stack: Stack) -> bytes:
    """Write the body of a create."""
    return json.dumps({"version": version_of(stack.upstream, "acme/storyteller"), "input": {"prompt": "hi"}}).encode()


async def send_slowly(stack: Stack, whole: bytes, pieces: int, every: float, *, stop_after: int | None = None) -> Reply:
    """Send a request whose body comes piece by piece."""
    head, _, body = whole.partition(b"\r\n\r\n")
    async with connection(stack) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        size = -(-len(body) // pieces)
        for number in range(pieces if stop_after is None else stop_after):
            writer.write(body[number * size : (number + 1) * size])
            await writer.drain()
            await asyncio.sleep(every)
        return await read_answer(reader)


async def dribble(stack: Stack, body: bytes, pieces: int, every: float, *, stop_after: int | None = None) -> Reply:
    """Send a create whose body comes piece by piece."""
    whole = raw_request("POST", "/v1/predictions", [JSON], body, key=stack.keys["alpha"])
    return await send_slowly(stack, whole, pieces, every, stop_after=stop_after)


async def test_a_body_that_keeps_coming_is_taken(open_gateway: OpenGateway) -> None:
    """What is bounded is silence: a body that takes twice as long as that is taken whole."""
    async with open_gateway(server={"body_idle_seconds": 1.5}) as stack:
        body = story(stack)[:-1] + b" " * 100_000 + b"}"
        assert (await dribble(stack, body, 30, 0.1)).status == 201


async def test_a_body_that_falls_silent_is_given_up(open_gateway: OpenGateway) -> None:
    """After the silence that the setting admits."""
    async with open_gateway(server={"body_idle_seconds": 1}) as stack:
        reply = await dribble(stack, story(stack), 10, 0.05, stop_after=5)
        assert reply.status in (400, 408)


@pytest.mark.parametrize(
    "size",
    [
        4_000,
        10_000,
        24_000,
    ],
)
async def test_the_cookies_of_a_large_site_are_taken(gateway: Stack, size: int) -> None:
    """A page that shares its domain with the gateway sends all of them, with every call."""
    headers = {"Origin": PAGE, "Cookie": "a=" + "x" * size}
    reply = await ask(gateway, "GET", "/v1/account", headers=headers)
    assert reply.status == 200, reply.text
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("fields", [1, 8], ids=["one field", "many fields"])
async def test_larger_heads_are_431_and_readable_by_the_page(gateway: Stack, fields: int) -> None:
    """Past 32 KiB in all."""
    cookies = [(f"X-Filler-{number}", "x" * (40_000 // fields)) for number in range(fields)]
    reply = await send_raw(gateway, raw_request("GET", "/v1/account", cookies, key=gateway.keys["alpha"]))
    assert_problem(reply, 431)


async def test_heads_beyond_the_parsers_bounds_are_refused(gateway: Stack) -> None:
    """The parser's own refusal: no more than a status."""
    reply = await send_raw(
        gateway, raw_request("GET", "/v1/account", [("Cookie", "x" * 200_000)], key=gateway.keys["alpha"])
    )
    assert reply.status in (400, 431)


async def test_url_that_is_too_long_is_named(gateway: Stack) -> None:
    """The line of a request may have 8,190 bytes, as with most servers."""
    reply = await send_raw(gateway, raw_request("GET", "/v1/predictions?x=" + "y" * 20_000, key=gateway.keys["alpha"]))
    assert_problem(reply, 414, origin=None)


async def half_closed(stack: Stack, data: bytes) -> Reply:
    """Send a request, end the sending direction, and read."""
    async with connection(stack) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        return await read_answer(reader)


async def test_a_half_closed_read_is_answered(gateway: Stack) -> None:
    """`nc -N`, some load balancers, and HTTP/1.0 programs end their side first."""
    made = await create(gateway)
    path = f"/v1/predictions/{made.json['id']}"
    assert (await half_closed(gateway, raw_request("GET", path, key=gateway.keys["alpha"]))).status == 200


@pytest.mark.parametrize("prefer", [None, "wait"])
async def test_a_half_closed_create_is_carried_out_and_answered(gateway: Stack, prefer: str | None) -> None:
    """Nobody has left."""
    headers = [JSON, ("Prefer", prefer)] if prefer else [JSON]
    reply = await half_closed(
        gateway, raw_request("POST", "/v1/predictions", headers, story(gateway), key=gateway.keys["alpha"])
    )
    assert reply.status == 201
    assert creates(gateway.upstream) == 1


SLOW = {"scopes": TEAM_SCOPES, "burst": 1, "max_wait_seconds": 20}


async def counted(stack: Stack, status: int) -> int:
    """Read how many creates are counted with a status."""
    pattern = rf'^replicate_gateway_http_requests_total\{{(?=.*predictions\.create)(?=.*code="{status}").*\}} (\S+)$'
    return sum(int(float(value)) for value in re.findall(pattern, await metrics_of(stack), re.MULTILINE))


@pytest.mark.parametrize(("limit", "kind"), [("predictions_per_minute", "limit"), ("requests_per_minute", "rate")])
@pytest.mark.parametrize("half", [False, True], ids=["hangs up", "half-closes"])
async def test_a_held_create_whose_caller_leaves_is_a_499_and_creates_nothing(
    open_gateway: OpenGateway, half: bool, limit: str, kind: str
) -> None:
    """It is the caller's doing, and no error of the gateway: it must not wake anybody up. It is counted at once."""
    async with open_gateway(teams={"alpha": SLOW | {limit: 4}}, clock=PausedClock()) as stack:
        assert (await create(stack, model="acme/storyteller", prompt="first")).status == 201
        made = creates(stack.upstream)
        async with connection(stack) as (_, writer):
            writer.write(raw_request("POST", "/v1/predictions", [JSON], story(stack), key=stack.keys["alpha"]))
            await writer.drain()
            await until_metric(stack, f'waiters{{kind="{kind}"}} 1.0')
            if half:
                writer.write_eof()
                await asyncio.sleep(0.3)
        async for _ in attempts():
            if await counted(stack, 499) + await counted(stack, 503):
                break
        assert await counted(stack, 503) == 0
        assert await counted(stack, 499) == 1
        assert creates(stack.upstream) == made


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_half_closed_pipeline_is_answered_and_closed_at_once(gateway: Stack, version: str) -> None:
    """The response is complete when the connection ends, not when it times out."""
    path = f"/v1/predictions/{(await create(gateway)).json['id']}"
    one = raw_request("GET", path, key=gateway.keys["alpha"]).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    one = one.replace(b"Connection: close", b"Connection: keep-alive")
    async with connection(gateway) as (reader, writer):
        writer.write(one * (3 if version == "1.1" else 1))
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            received = await reader.read()
    assert received.count(b" 200 OK") == (3 if version == "1.1" else 1)


@pytest.mark.parametrize("sent", [b"", b"GET /v1/acc", b"PARTIAL"], ids=["nothing", "half a head", "half a body"])
async def test_connection_that_ends_before_a_request_is_complete_is_closed(gateway: Stack, sent: bytes) -> None:
    """Nobody waits for the rest."""
    if sent == b"PARTIAL":
        sent = raw_request("POST", "/v1/predictions", [JSON], story(gateway), key=gateway.keys["alpha"])[:-10]
    async with connection(gateway) as (reader, writer):
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            received = await reader.read()
    assert b" 201 " not in received
    assert creates(gateway.upstream) == 0


async def test_reader_of_a_stream_who_half_closes_has_left(gateway: Stack) -> None:
    """Event streams are read until the reader closes; one that has closed its half is not served on."""
    hold_runs(gateway.upstream, "acme/storyteller")
    made = await create(gateway, model="acme/storyteller", prompt="a b c d e f")
    path = urlsplit(made.json["urls"]["stream"]).path
    async with connection(gateway) as (reader, writer):
        writer.write(raw_request("GET", path))
        await reader.readuntil(b": hi")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await reader.read()
    await until_metric(gateway, 'replicate_gateway_sse_streams{side="downstream"} 0.0')


async def test_head_of_a_stream_subscribes_to_nothing(gateway: Stack) -> None:
    """The headers of the stream, at once, and the connection goes on."""
    made = await create(gateway, model="acme/storyteller", prompt="a b c", token_delay=5)
    reply = await ask(gateway, "HEAD", made.json["urls"]["stream"], key=None, headers={"Origin": PAGE})
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE
    text = await metrics_of(gateway)
    assert 'replicate_gateway_sse_streams{side="downstream"} 0.0' in text
    assert 'replicate_gateway_sse_streams{side="upstream"} 0.0' in text
    unknown = await ask(gateway, "HEAD", "/v1/streams/" + "a" * 52, key=None)
    assert (unknown.status, unknown.body) == (404, b"")


async def upload_slowly(stack: Stack, pieces: int, every: float, *, stop_after: int | None = None) -> Reply:
    """Upload a file piece by piece."""
    body = form(content(data=b"x" * 20_000))
    whole = raw_request("POST", "/v1/files", [("Content-Type", FORM)], body, key=stack.keys["alpha"])
    return await send_slowly(stack, whole, pieces, every, stop_after=stop_after)


async def test_file_that_keeps_coming_is_taken_and_one_that_falls_silent_is_not(open_gateway: OpenGateway) -> None:
    """The same bounds as for JSON; what was cut is no file upstream."""
    async with open_gateway(server={"body_idle_seconds": 1, "body_min_bytes_per_second": 100}) as stack:
        assert (await upload_slowly(stack, 10, 0.15)).status == 201
        assert len(stack.upstream.world.files._files) == 1
        cut = await upload_slowly(stack, 10, 0.02, stop_after=5)
        assert_problem(cut, 400, origin=None)
        assert "nothing arrived for 1 seconds" in cut.json["detail"]
        assert len(stack.upstream.world.files._files) == 1


async def test_body_below_the_minimum_rate_is_given_up(open_gateway: OpenGateway) -> None:
    """A byte now and then does not hold a connection, whatever its silence."""
    async with open_gateway(server={"body_idle_seconds": 0.3, "body_min_bytes_per_second": 100_000}) as stack:
        reply = await dribble(stack, story(stack), 20, 0.1, stop_after=10)
        assert reply.status == 400
        assert "fewer than 100000 bytes per second" in reply.json["detail"]
        assert 'refusals_total{reason="BodyTooSlow"} 1.0' in await metrics_of(stack)


async def test_bound_of_the_head_is_a_setting(open_gateway: OpenGateway) -> None:
    """The sum of all fields; a page can read the refusal, and a reload applies it."""
    async with open_gateway(server={"max_header_bytes": 4096}) as stack:
        for size, status in ((3000, 200), (5000, 431)):
            headers = [("Origin", PAGE), *((f"X-{part}", "x" * (size // 5)) for part in range(5))]
            reply = await ask(stack, "GET", "/v1/account", headers=headers)
            assert reply.status == status
        problem = assert_problem(reply, 431)
        assert problem["request_id"] == reply.headers["X-Request-Id"]
        assert 'refusals_total{reason="HeadTooLarge"} 1.0' in await metrics_of(stack)


async def test_head_without_an_end_is_refused(gateway: Stack) -> None:
    """Each field is within the parser's bound; their sum is more than 256 KiB."""
    async with connection(gateway) as (reader, writer):
        with suppress(ConnectionError):
            writer.write(b"GET /v1/account HTTP/1.1\r\nHost: a\r\n")
            for number in range(5):
                writer.write(b"X-%d: %b\r\n" % (number, b"x" * 60_000))
                await writer.drain()
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                received = await reader.read()
    assert received.startswith(b"HTTP/1.1 431 ") or not received
    assert (await ask(gateway, "GET", "/healthz", key=None)).status == 200
