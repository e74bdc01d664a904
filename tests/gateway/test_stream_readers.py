"""Readers of one stream: many, late, slow, gone, each at its own pace and independent of the others."""

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.http.sse.connection import Reader
from gateway.http.sse.fan_out import BLOCK_BYTES, FanOut
from gateway.http.sse.registry import MAX_STALLED_HEARTBEATS as BEATS
from tests.support.clock import ManualClock
from tests.support.event_streams import read_stream
from tests.support.http_calls import PATIENCE, ask, metrics_of, until_metric
from tests.support.polling import attempts, until
from tests.support.rounds import amounts
from tests.support.samples import create
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack
from tests.support.stream_host import DONE, HI, event, ids, open_stream, stream_host, stream_url

CROWD = 200
HEARTBEAT = b":\n\n"
_LARGE = 64 * 1024


@pytest.fixture
async def still(open_gateway: OpenGateway) -> AsyncIterator[tuple[Stack, ManualClock]]:
    """A gateway for which time stands still."""
    clock = ManualClock()
    async with open_gateway(clock=clock) as stack:
        yield stack, clock


def readers() -> list[Reader]:
    """Find the open streams of all gateways in this process: no door of theirs shows what they hold."""
    return [each for each in gc.get_objects() if type(each) is Reader and not each._transport.is_closing()]


def held_bytes(among: Iterable[Reader]) -> int:
    """Count what is held for callers who have not taken it."""
    return sum(reader._transport.get_write_buffer_size() for reader in among)


async def open_streams(stack: Stack) -> float:
    """Read the gauge."""
    (line,) = [line for line in (await metrics_of(stack)).splitlines() if 'sse_streams{side="downstream"}' in line]
    return float(line.split()[-1])


async def test_two_hundred_readers_share_one_upstream_connection(gateway: Stack):
    """Whenever they join, each gets the whole stream from its start, once, and the same bytes as the others."""
    async with stream_host(gateway.upstream) as (wire, _), AsyncExitStack() as exits:
        url = await stream_url(gateway)
        callers = []
        for number in range(CROWD):
            callers.append(await exits.enter_async_context(open_stream(url)))
            await wire.say(event(number, f" token {number}"))
        await wire.say(DONE)
        bodies = await asyncio.gather(*(caller.rest() for caller in callers))
        assert set(bodies) == {HI + b"".join(wire.said)}
        assert wire.connections == 1
        late = await read_stream(gateway, url)
        assert late.body == bodies[0]
        assert wire.connections == 1


async def test_readers_of_one_prediction_share_what_is_kept_for_them(gateway: Stack):
    """Ten thousand pages that watch one run cost little more than their connections."""
    async with stream_host(gateway.upstream) as (wire, _), AsyncExitStack() as exits:
        url = await stream_url(gateway)
        callers = [await exits.enter_async_context(open_stream(url)) for _ in range(3)]
        await wire.say(event(0, " token"))
        await until(lambda: _are_live(3))
        before = _own_objects()
        callers += [await exits.enter_async_context(open_stream(url)) for _ in range(CROWD)]
        await until(lambda: _are_live(3 + CROWD))
        # A connection, its request, a reader, and what writes to it.
        assert _own_objects() - before <= 4 * CROWD + CROWD // 10
        assert not any(reader.response.headers for reader in readers())
        await wire.say(DONE)
        assert {await caller.rest() for caller in callers} == {HI + b"".join(wire.said)}


async def test_stalled_reader_costs_no_memory_and_delays_no_other(open_gateway: OpenGateway):
    """A phone in a tunnel: nothing is buffered for it, and when it resumes it gets the stream or learns what is
    missing.
    """
    async with (
        open_gateway(streams={"max_log_bytes": 4 * _LARGE}) as stack,
        stream_host(stack.upstream) as (wire, _),
        AsyncExitStack() as exits,
    ):
        url = await stream_url(stack)
        stalled = [await exits.enter_async_context(open_stream(url, receive_buffer=4096)) for _ in range(10)]
        held = readers()
        for reader in held:
            # Otherwise the kernel would hold megabytes for each before the gateway has to hold anything.
            reader._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGE)
        quick = await exits.enter_async_context(open_stream(url))
        for number in range(32):
            piece = event(number, "x" * _LARGE)
            await wire.say(piece)
            # The quick one has each before the next is said: nobody is waited for.
            while not quick.body.endswith(piece):
                await quick.more()
            assert held_bytes(held) <= len(stalled) * (BLOCK_BYTES + 2 * _LARGE)
        assert held_bytes(held)
        await wire.say(DONE)
        assert ids(await quick.rest())[-1] == b"10:999999"
        for caller in stalled:
            body = await caller.rest()
            reported, _, error = body.partition(b"event: error\n")
            assert b"".join(wire.said).startswith(reported.removeprefix(HI)), "whole events, from the start"
            assert b"no longer available" in error
            assert error.endswith(b'data: {"reason":"error"}\n\n')


async def test_reader_of_one_byte_at_a_time_gets_everything(still: tuple[Stack, ManualClock]):
    """One byte a second of four thousand: it costs one block, delays no other reader and gets the whole stream."""
    stack, clock = still
    async with stream_host(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with open_stream(url, receive_buffer=4096) as slow, open_stream(url) as quick:
            (reader,) = [each for each in readers() if each._transport.get_extra_info("peername") == slow.address]
            reader._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for number in range(64):
                await wire.say(piece := event(number, "x" * 4096))
                while not quick.body.endswith(piece):
                    await quick.more()
                await slow.taste()
                await clock.advance(1)
                assert held_bytes([reader]) <= 2 * BLOCK_BYTES
            assert held_bytes([reader])
            await wire.say(DONE)
            assert (await slow.rest()).replace(HEARTBEAT, b"") == HI + b"".join(wire.said)


async def test_slow_reader_gets_everything_that_is_kept(gateway: Stack):
    """A slow reader loses nothing as long as the log has it."""
    async with stream_host(gateway.upstream) as (wire, _):
        url = await stream_url(gateway)
        async with open_stream(url, receive_buffer=4096) as slow, open_stream(url) as quick:
            for number in range(48):
                await wire.say(event(number, "x" * _LARGE))
            await wire.say(DONE)
            assert await quick.rest() == HI + b"".join(wire.said)
            assert await slow.rest() == quick.body


async def test_reader_that_accepts_nothing_for_four_heartbeats_is_disconnected(still: tuple[Stack, ManualClock]):
    """Its place is free again, and it can resume with its last event's id."""
    stack, clock = still
    async with stream_host(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with open_stream(url, receive_buffer=4096) as stalled, open_stream(url) as quick:
            for number in range(128):
                await wire.say(piece := event(number, "x" * _LARGE))
                while not quick.body.endswith(piece):
                    await quick.more()
            assert held_bytes(readers())
            for _ in range(BEATS):
                await clock.advance(15)
                assert await open_streams(stack) == 2
            await clock.advance(15)
            async for _ in attempts():
                if await open_streams(stack) <= 1:
                    break
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await stalled.rest()
            assert 'streams_ended_total{how="stalled"} 1.0' in await metrics_of(stack)
            await wire.say(DONE)
            assert (await quick.rest()).replace(HEARTBEAT, b"").endswith(DONE)


async def test_silent_stream_sends_heartbeats(still: tuple[Stack, ManualClock]):
    """A comment at once and every 15 seconds, from one timer for all: proxies keep the connection."""
    stack, clock = still
    async with stream_host(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with open_stream(url) as one, open_stream(url) as other:
            for caller in (one, other):
                assert await caller.until(HI) == HI
            for number in range(1, 5):
                await clock.advance(15)
                for caller in (one, other):
                    while caller.body.count(HEARTBEAT) < number:
                        await caller.more()
                    assert caller.body == HI + number * HEARTBEAT
            await wire.say(event(0))
            assert await one.until(event(0)) == HI + 4 * HEARTBEAT + event(0)


async def test_disconnect_is_noticed_in_a_silent_stream(still: tuple[Stack, ManualClock]):
    """A closed tab frees its place at once, though nothing is written."""
    stack, _ = still
    async with stream_host(stack.upstream):
        url = await stream_url(stack)
        async with open_stream(url) as one, open_stream(url) as other:
            for caller in (one, other):
                await caller.until(HI)
            assert await open_streams(stack) == 2
            one.hang_up()
            async for _ in attempts():
                if await open_streams(stack) <= 1:
                    break
            assert 'streams_ended_total{how="left"} 1.0' in await metrics_of(stack)


async def test_callers_of_a_shared_run_stream_by_their_own_tickets(gateway: Stack):
    """A joined caller and a hit read the same bytes; only the reader of a cancelled one gets its end at once."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller", after=1)
    given = {"prompt": "hi", "seed": 7}
    lead, joined, leaver = [(await create(gateway, model="acme/storyteller", **given)).json for _ in range(3)]
    urls = [each["urls"]["stream"] for each in (lead, joined, leaver)]
    assert len(set(urls)) == 3
    async with open_stream(urls[0]) as first, open_stream(urls[1]) as second, open_stream(urls[2]) as third:
        for caller in (first, second, third):
            await caller.until(b"event: output\n")
        await ask(gateway, "POST", f"/v1/predictions/{leaver['id']}/cancel")
        assert (await third.rest()).endswith(b'data: {"reason":"canceled"}\n\n')
        assert b"event: done" not in first.body
        assert (await read_stream(gateway, urls[2], **{"Last-Event-ID": ids(third.body)[-1].decode()})).status == 204
        go_on.set()
        whole = await first.rest()
        assert await second.rest() == whole
        assert whole.endswith(b"data: {}\n\n")
    await until(lambda: gateway.upstream.predictions[0].completed_us is not None)
    async with asyncio.timeout(PATIENCE):
        while True:
            hit = await create(gateway, model="acme/storyteller", **given)
            if "hit" in hit.headers["Cache-Status"]:
                break
    assert (await read_stream(gateway, hit.json["urls"]["stream"])).body == whole
    assert gateway.upstream.requests.count("streams.get") == 1


async def test_cancel_ends_a_silent_stream_at_once(gateway: Stack):
    """The run goes on for another caller: the page that cancelled waits for neither."""
    async with stream_host(gateway.upstream) as (wire, _):
        given = {"prompt": "hi", "seed": 7, "duration": 3600}
        stayer, leaver = [(await create(gateway, model="acme/storyteller", **given)).json for _ in range(2)]
        async with open_stream(stayer["urls"]["stream"]) as first, open_stream(leaver["urls"]["stream"]) as second:
            for caller in (first, second):
                await caller.until(HI)
            await ask(gateway, "POST", f"/v1/predictions/{leaver['id']}/cancel")
            assert (await second.rest()).endswith(b'data: {"reason":"canceled"}\n\n')
            await wire.say(event(0), DONE)
            assert await first.rest() == HI + event(0) + DONE


@pytest.mark.parametrize("visits", amounts(30, 120))
async def test_reconnects_leak_nothing(still: tuple[Stack, ManualClock], visits: int):
    """Pages are opened, lose the connection, come back and close: sockets, tasks and bytes end where they began."""
    stack, clock = still
    async with stream_host(stack.upstream) as (wire, _):
        url = await stream_url(stack)

        async def visit(number: int) -> None:
            async with open_stream(url) as first:
                await first.until(HI)
                await wire.say(event(number))
                await first.until(event(number))
                first.hang_up()
            async with open_stream(url, Last_Event_ID=f"10:{number}") as second:
                assert await second.until(HI) == HI
                await wire.say(event(number + 1))
                assert (await second.until(event(number + 1))).startswith(HI)

        async def quiet() -> tuple[int, int, int]:
            async for _ in attempts():
                if not await open_streams(stack):
                    break
            gc.collect()
            return _open_files(), len(asyncio.all_tasks()), _own_objects()

        number, unvisited = 0, _fan_outs()
        for _ in range(3):
            await visit(number)
            number += 2
        before = await quiet()
        for _ in range(visits):
            await visit(number)
            number += 2
            await clock.advance(60)
        # Whatever is still on its way out is given its time; what stays is a leak, of one a visit at least.
        async for _ in attempts():
            if not any(now > then + visits // 10 for now, then in zip(await quiet(), before, strict=True)):
                break
        assert _fan_outs() <= unvisited
        assert wire.connections == 1
        await wire.say(DONE)
        whole = (await read_stream(stack, url)).body
        assert ids(whole) == [*(b"10:%d" % n for n in range(number)), b"10:999999"]
        assert f"kept_log_bytes {len(whole) - len(HI) + 1024}" in await metrics_of(stack)


def _are_live(count: int) -> bool:
    return sum(reader.is_live for reader in readers()) == count


def _fan_outs() -> int:
    return sum(type(each) is FanOut for each in gc.get_objects())


def _own_objects() -> int:
    """Count what the gateway has made and still holds: of a leak, a visit would leave one at least."""
    modules = (str(type(each).__module__) for each in gc.get_objects())
    return sum(each.startswith("gateway.") and not each.startswith("gateway.simulator") for each in modules)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_disconnect_before_the_response_is_no_crash(gateway: Stack, caplog: pytest.LogCaptureFixture):
    """Tabs are closed at every moment: the access log has a line for each, and there is no traceback."""
    caplog.set_level(logging.INFO)
    async with stream_host(gateway.upstream):
        parts = urlsplit(await stream_url(gateway))
        before = 'how="left"} 10.0'
        for _ in range(10):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n".encode())
            # Both are there when the gateway looks.
            writer.transport.abort()
        await until_metric(gateway, before)
        assert not await open_streams(gateway)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
