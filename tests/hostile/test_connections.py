"""Slow bodies, large heads, half-closed connections, callers who leave: honest ones are served, none is miscounted."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.support.http_calls import PAGE, Reply, ask, assert_problem, metrics_of, parse, raw_request, send_raw
from tests.support.samples import create
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack
from tests.support.upstream import creates, version_of

JSON = ("Content-Type", "application/json")


@asynccontextmanager
async def connection(stack: Stack) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, and close it."""
    parts = urlsplit(stack.origin)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader, seconds: float = 8.0) -> Reply:
    """Read one answer, to the end of the connection."""
    async with asyncio.timeout(seconds):
        return parse(await reader.read())


def story(stack: Stack) -> bytes:
    """Write the body of a create."""
    return json.dumps({"version": version_of(stack.upstream, "acme/storyteller"), "input": {"prompt": "hi"}}).encode()


async def dribble(stack: Stack, body: bytes, pieces: int, every: float, *, stop_after: int | None = None) -> Reply:
    """Send a create whose body comes piece by piece."""
    async with connection(stack) as (reader, writer):
        whole = raw_request("POST", "/v1/predictions", [JSON], body, key=stack.keys["alpha"])
        head, _, _ = whole.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        size = -(-len(body) // pieces)
        for number in range(pieces if stop_after is None else stop_after):
            writer.write(body[number * size : (number + 1) * size])
            await writer.drain()
            await asyncio.sleep(every)
        return await read_answer(reader)


async def test_a_body_that_keeps_coming_is_taken(open_gateway: OpenGateway) -> None:
    """What is bounded is silence: a body that takes three times as long as that is taken whole."""
    async with open_gateway(server={"body_idle_seconds": 1}) as stack:
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


async def half_closed(stack: Stack, data: bytes, seconds: float = 8.0) -> Reply:
    """Send a request, end the sending direction, and read."""
    async with connection(stack) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        return await read_answer(reader, seconds)


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


SLOW_RATE = {"alpha": {"scopes": TEAM_SCOPES, "predictions_per_minute": 30, "burst": 1, "max_wait_seconds": 20}}


async def counted(stack: Stack, status: int) -> int:
    """Read how many creates are counted with a status."""
    pattern = rf'^replicate_gateway_http_requests_total\{{(?=.*predictions\.create)(?=.*code="{status}").*\}} (\S+)$'
    return sum(int(float(value)) for value in re.findall(pattern, await metrics_of(stack), re.MULTILINE))


@pytest.mark.parametrize("half", [False, True], ids=["hangs up", "half-closes"])
async def test_a_held_create_whose_caller_leaves_is_a_499_and_creates_nothing(
    open_gateway: OpenGateway, half: bool
) -> None:
    """It is the caller's doing, and no error of the gateway: it must not wake anybody up."""
    async with open_gateway(teams=SLOW_RATE) as stack:
        assert (await create(stack, model="acme/storyteller", prompt="first")).status == 201
        made = creates(stack.upstream)
        async with connection(stack) as (_, writer):
            writer.write(raw_request("POST", "/v1/predictions", [JSON], story(stack), key=stack.keys["alpha"]))
            await writer.drain()
            await asyncio.sleep(0.3)
            if half:
                writer.write_eof()
                await asyncio.sleep(0.3)
        async with asyncio.timeout(6):
            while not await counted(stack, 499) + await counted(stack, 503):
                await asyncio.sleep(0.1)
        assert await counted(stack, 503) == 0
        assert await counted(stack, 499) == 1
        assert creates(stack.upstream) == made
