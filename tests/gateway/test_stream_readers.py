"""Readers of one stream: many, late, slow, gone, each at its own pace and at nobody else's cost."""

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
from tests.gateway.conftest import OpenGateway
from tests.gateway.test_streams import listen
from tests.support.clock import ManualClock
from tests.support.samples import create
from tests.support.stack import Stack
from tests.support.upstream import until
from tests.support.wire import PATIENCE, ask, metrics_of
from tests.support.wired import DONE, HI, calling, event, ids, stream_url, wired

CROWD = 200
VISITS = 120
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


async def test_two_hundred_readers_cost_upstream_one_connection(gateway: Stack):
    """Whenever they join, each gets the whole from its start, once, and the same as the others."""
    async with wired(gateway.upstream) as (wire, _), AsyncExitStack() as exits:
        url = await stream_url(gateway)
        callers = []
        for number in range(CROWD):
            callers.append(await exits.enter_async_context(calling(url)))
            await wire.say(event(number, f" token {number}"))
        await wire.say(DONE)
        bodies = await asyncio.gather(*(caller.rest() for caller in callers))
        assert set(bodies) == {HI + b"".join(wire.said)}
        assert wire.connections == 1
        late = await listen(gateway, url)
        assert late.body == bodies[0]
        assert wire.connections == 1


async def test_a_reader_who_takes_nothing_costs_nothing_and_delays_nobody(open_gateway: OpenGateway):
    """A phone in a tunnel: what it has not taken is not kept for it, and when it is back it is told the truth."""
    async with (
        open_gateway(streams={"max_log_bytes": 4 * _LARGE}) as stack,
        wired(stack.upstream) as (wire, _),
        AsyncExitStack() as exits,
    ):
        url = await stream_url(stack)
        stalled = [await exits.enter_async_context(calling(url, receive_buffer=4096)) for _ in range(10)]
        held = readers()
        for reader in held:
            # Otherwise the kernel would hold megabytes for each before the gateway has to hold anything.
            reader._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGE)
        quick = await exits.enter_async_context(calling(url))
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
            told, _, error = body.partition(b"event: error\n")
            assert b"".join(wire.said).startswith(told.removeprefix(HI)), "whole events, from the start"
            assert b"no longer available" in error
            assert error.endswith(b'data: {"reason":"error"}\n\n')


async def test_a_reader_of_one_byte_at_a_time_misses_nothing(still: tuple[Stack, ManualClock]):
    """A byte a second, of four thousand that are said: it costs one block, delays nobody, and is told the whole."""
    stack, clock = still
    async with wired(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with calling(url, receive_buffer=4096) as slow, calling(url) as quick:
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


async def test_a_slow_reader_gets_all_that_is_still_kept(gateway: Stack):
    """Slow is no reason to lose anything, as long as the log has it."""
    async with wired(gateway.upstream) as (wire, _):
        url = await stream_url(gateway)
        async with calling(url, receive_buffer=4096) as slow, calling(url) as quick:
            for number in range(48):
                await wire.say(event(number, "x" * _LARGE))
            await wire.say(DONE)
            assert await quick.rest() == HI + b"".join(wire.said)
            assert await slow.rest() == quick.body


async def test_who_takes_nothing_for_long_is_cut_off(still: tuple[Stack, ManualClock]):
    """Four heartbeats without a byte taken: the place is free again, for who comes back with its last event's id."""
    stack, clock = still
    async with wired(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with calling(url, receive_buffer=4096) as stalled, calling(url) as quick:
            for number in range(128):
                await wire.say(piece := event(number, "x" * _LARGE))
                while not quick.body.endswith(piece):
                    await quick.more()
            assert held_bytes(readers())
            for _ in range(BEATS):
                await clock.advance(15)
                assert await open_streams(stack) == 2
            await clock.advance(15)
            async with asyncio.timeout(PATIENCE):
                while await open_streams(stack) > 1:
                    await asyncio.sleep(0.01)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await stalled.rest()
            assert 'streams_ended_total{how="stalled"} 1.0' in await metrics_of(stack)
            await wire.say(DONE)
            assert (await quick.rest()).replace(HEARTBEAT, b"").endswith(DONE)


async def test_a_line_that_is_silent_is_shown_to_be_up(still: tuple[Stack, ManualClock]):
    """A comment at once and every 15 seconds, for all by one timer: proxies do not give the line up."""
    stack, clock = still
    async with wired(stack.upstream) as (wire, _):
        url = await stream_url(stack)
        async with calling(url) as one, calling(url) as other:
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


async def test_a_reader_who_leaves_is_noticed_though_nothing_is_written(still: tuple[Stack, ManualClock]):
    """A closed tab gives its place back at once, in a silent stream too."""
    stack, _ = still
    async with wired(stack.upstream):
        url = await stream_url(stack)
        async with calling(url) as one, calling(url) as other:
            for caller in (one, other):
                await caller.until(HI)
            assert await open_streams(stack) == 2
            one.hang_up()
            async with asyncio.timeout(PATIENCE):
                while await open_streams(stack) > 1:
                    await asyncio.sleep(0.01)
            assert 'streams_ended_total{how="left"} 1.0' in await metrics_of(stack)


async def test_each_who_shares_a_run_streams_by_its_own_ticket(gateway: Stack):
    """One who joined and one who hit read the same bytes; one who cancels is told so at once, alone."""
    given = {"prompt": "hi", "seed": 7, "duration": 40}
    lead, joined, leaver = [(await create(gateway, model="acme/storyteller", **given)).json for _ in range(3)]
    urls = [each["urls"]["stream"] for each in (lead, joined, leaver)]
    assert len(set(urls)) == 3
    async with calling(urls[0]) as first, calling(urls[1]) as second, calling(urls[2]) as third:
        for caller in (first, second, third):
            await caller.until(b"event: output\n")
        await ask(gateway, "POST", f"/v1/predictions/{leaver['id']}/cancel")
        assert (await third.rest()).endswith(b'data: {"reason":"canceled"}\n\n')
        assert b"event: done" not in first.body
        assert (await listen(gateway, urls[2], **{"Last-Event-ID": ids(third.body)[-1].decode()})).status == 204
        whole = await first.rest()
        assert await second.rest() == whole
        assert whole.endswith(b"data: {}\n\n")
    await until(lambda: gateway.upstream.predictions[0].completed_us is not None)
    async with asyncio.timeout(PATIENCE):
        while True:
            hit = await create(gateway, model="acme/storyteller", **given)
            if "hit" in hit.headers["Cache-Status"]:
                break
    assert (await listen(gateway, hit.json["urls"]["stream"])).body == whole
    assert gateway.upstream.requests.count("streams.get") == 1


async def test_who_cancels_is_told_at_once_though_the_stream_is_silent(gateway: Stack):
    """The run has nothing to say and goes on for another: the page that cancelled does not wait for either."""
    async with wired(gateway.upstream) as (wire, _):
        given = {"prompt": "hi", "seed": 7, "duration": 3600}
        stayer, leaver = [(await create(gateway, model="acme/storyteller", **given)).json for _ in range(2)]
        async with calling(stayer["urls"]["stream"]) as first, calling(leaver["urls"]["stream"]) as second:
            for caller in (first, second):
                await caller.until(HI)
            await ask(gateway, "POST", f"/v1/predictions/{leaver['id']}/cancel")
            assert (await second.rest()).endswith(b'data: {"reason":"canceled"}\n\n')
            await wire.say(event(0), DONE)
            assert await first.rest() == HI + event(0) + DONE


async def test_two_hours_of_coming_and_going_leave_nothing_behind(still: tuple[Stack, ManualClock]):
    """Pages are opened, lose the line, come back and are closed: sockets, tasks and bytes end where they began."""
    stack, clock = still
    async with wired(stack.upstream) as (wire, _):
        url = await stream_url(stack)

        async def visit(number: int) -> None:
            async with calling(url) as first:
                await first.until(HI)
                await wire.say(event(number))
                await first.until(event(number))
                first.hang_up()
            async with calling(url, Last_Event_ID=f"10:{number}") as second:
                assert await second.until(HI) == HI
                await wire.say(event(number + 1))
                assert (await second.until(event(number + 1))).startswith(HI)

        async def quiet() -> tuple[int, int, int]:
            async with asyncio.timeout(PATIENCE):
                while await open_streams(stack):
                    await asyncio.sleep(0.01)
            gc.collect()
            return _open_files(), len(asyncio.all_tasks()), _own_objects()

        number, unvisited = 0, _fan_outs()
        for _ in range(3):
            await visit(number)
            number += 2
        before = await quiet()
        for _ in range(VISITS):
            await visit(number)
            number += 2
            await clock.advance(60)
        async with asyncio.timeout(PATIENCE):
            # Whatever is still on its way out is given its time; what stays is a leak, of one a visit at least.
            while any(now > then + VISITS // 10 for now, then in zip(await quiet(), before, strict=True)):
                await asyncio.sleep(0.01)
        assert _fan_outs() <= unvisited
        assert wire.connections == 1
        await wire.say(DONE)
        whole = (await listen(stack, url)).body
        assert ids(whole) == [*(b"10:%d" % n for n in range(number)), b"10:999999"]
        assert f"kept_log_bytes {len(whole) - len(HI) + 1024}" in await metrics_of(stack)


def _fan_outs() -> int:
    return sum(type(each) is FanOut for each in gc.get_objects())


def _own_objects() -> int:
    """Count what the gateway has made and still holds: of a leak, a visit would leave one at least."""
    modules = (str(type(each).__module__) for each in gc.get_objects())
    return sum(each.startswith("gateway.") and not each.startswith("gateway.simulator") for each in modules)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_who_leaves_before_the_answer_is_no_crash(gateway: Stack, caplog: pytest.LogCaptureFixture):
    """Tabs are closed in every moment: the log has a line of each, and no traceback."""
    caplog.set_level(logging.INFO)
    async with wired(gateway.upstream):
        parts = urlsplit(await stream_url(gateway))
        before = 'how="left"} 10.0'
        for _ in range(10):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n".encode())
            # Both are there when the gateway looks.
            writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while before not in await metrics_of(gateway):
                await asyncio.sleep(0.01)
        assert not await open_streams(gateway)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
