"""Streams through restarts, deploys and kills: readers come back with their last id, and nothing is lost or twice."""

import asyncio
import contextlib
import signal
import sqlite3
import time
from contextlib import closing
from datetime import timedelta

import aiohttp
import pytest
from aiohttp_sse_client.client import EventSource

from gateway.simulator import Simulator
from tests.support.clock import ManualClock
from tests.support.event_streams import output_texts, read_stream, read_stream_from_upstream, without_comments
from tests.support.http_calls import PATIENCE
from tests.support.installation import Installation
from tests.support.polling import attempts, until
from tests.support.ports import free_port
from tests.support.samples import create, finished
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack
from tests.support.stream_host import DONE, HI, event, ids, open_stream, stream_host, stream_url
from tests.support.upstream import version_of

COME_BACK = b"retry: 1000\n\n"


def ticket(stack: Stack, url: str) -> str:
    """Spell the same stream's URL at another gateway."""
    return f"{stack.base_url}/{url.partition('/v1/')[2]}"


async def test_deploy_in_the_middle_of_a_stream_loses_no_event(open_gateway: OpenGateway):
    """The old process ends each stream between two events and asks to reconnect; the new one goes on from there."""
    async with open_gateway() as stack:
        go_on = hold_runs(stack.upstream, "acme/storyteller", after=3)
        reply = (await create(stack, model="acme/storyteller", prompt="hi", seed=7)).json
        keys, url = stack.keys, reply["urls"]["stream"]
        first = asyncio.create_task(read_stream(stack, url))
        async with open_stream(url) as caller:
            await caller.until(b"event: output\n")
    head = (await first).body
    assert head.endswith(COME_BACK)
    head = head.removesuffix(COME_BACK)
    async with open_gateway(keys=keys) as stack:
        last = {"Last-Event-ID": ids(head)[-1].decode()}
        reading = asyncio.create_task(read_stream(stack, ticket(stack, url), **last))
        await until(lambda: stack.upstream.requests.count("streams.get") == 2)
        go_on.set()
        rest = (await reading).body
        assert rest.startswith(HI)
        whole = head + rest.removeprefix(HI)
        result = await finished(stack, reply["id"])
        assert output_texts(whole) == result["output"]
        assert "".join(output_texts(whole)) == "".join(result["output"])
        assert len(set(ids(whole))) == len(ids(whole))
        assert without_comments(whole) == without_comments(await read_stream_from_upstream(stack))
        assert (await read_stream(stack, ticket(stack, url))).body == whole
        last_ids = [
            seen.headers.get("last-event-id") for seen in stack.upstream.requests if seen.operation == "streams.get"
        ]
        assert last_ids[0] is None
        assert last_ids[1] is not None, "upstream is asked for the rest, not for all of it"


class Listener:
    """Somebody who puts the pieces of a stream together."""

    def __init__(self) -> None:
        self.heard = b""
        self.count = 0
        """Events that came by this connection."""

    async def read(self, url: str) -> None:
        """Go on after the last event until the line drops. Half an event is none, as the standard says."""
        before, received = self.heard, b""
        headers = {"Last-Event-ID": ids(before)[-1].decode()} if before else {}
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
                assert response.status in (200, 204)
                async for chunk in response.content.iter_any():
                    received += chunk
                    whole, cut, _ = received.rpartition(b"\n\n")
                    news = (whole + cut).removeprefix(HI)
                    self.heard, self.count = before + news, len(ids(news))


@pytest.mark.timeout(60)
async def test_kill_in_the_middle_of_a_stream_loses_no_event(installation: Installation, upstream: Simulator):
    """`kill -9` again and again while three clients read: each ends up with what upstream sent."""
    given = {"prompt": "hi", "seed": 7, "max_tokens": 1000, "token_delay": 2}
    body = {"version": version_of(upstream, "acme/storyteller"), "input": given}
    listeners = [Listener() for _ in range(3)]
    url = ""
    for number in range(4):
        async with installation.serving() as process:
            if not url:
                async with installation.caller("alpha") as session, session.post("/v1/predictions", json=body) as reply:
                    url = (await reply.json())["urls"]["stream"]
            reading = [asyncio.create_task(each.read(url)) for each in listeners]
            if number < 3:
                async for _ in attempts():
                    if min(each.count for each in listeners) >= 5 + number * 3:
                        break
                process.send_signal(signal.SIGKILL)
                await process.wait()
            else:
                # The rest comes at once.
                upstream.clock.speed = 1e6
            await asyncio.gather(*reading)
            for each in listeners:
                each.count = 0
    path = upstream.predictions[0].stream_path
    async with aiohttp.ClientSession() as session, session.get(f"{upstream.delivery_url}{path}") as response:
        truth = b""
        while b"event: done" not in truth or not truth.endswith(b"\n\n"):
            truth += await response.content.readany()
    for each in listeners:
        assert len(set(ids(each.heard))) == len(ids(each.heard))
        assert without_comments(each.heard) == without_comments(truth)
    assert "Traceback" not in (installation.folder / "output.txt").read_text()


async def test_sse_client_library_reconnects_by_itself(open_gateway: OpenGateway):
    """aiohttp-sse-client reads as a browser would: it is asked to reconnect and does so."""
    port = free_port()
    async with contextlib.AsyncExitStack() as exits:
        async with open_gateway(server={"port": port}) as stack:
            host = await exits.enter_async_context(stream_host(stack.upstream))
            wire, _ = host
            url, keys = await stream_url(stack), stack.keys
            await wire.say(event(0), event(1))
            source = await exits.enter_async_context(
                EventSource(url, reconnection_time=timedelta(milliseconds=20), max_connect_retry=9)
            )
            got = [(each.type, each.last_event_id) for each in [await anext(source), await anext(source)]]
        async with open_gateway(server={"port": port}, keys=keys):
            await wire.say(event(2), DONE)
            async with asyncio.timeout(PATIENCE):
                async for each in source:
                    got.append((each.type, each.last_event_id))
                    if each.type == "done":
                        break
    assert got == [("output", "10:0"), ("output", "10:1"), ("output", "10:2"), ("done", "10:999999")]


async def test_stream_of_a_cleared_prediction_says_so(open_gateway: OpenGateway):
    """After an hour the janitor removes the data and the stream's log: the stream says so and ends."""
    clock = ManualClock(time.time())
    async with open_gateway(clock=clock) as stack:
        async with stream_host(stack.upstream) as (wire, _):
            url = await stream_url(stack, duration=20)
            await wire.say(event(0, "a secret that was sent"), DONE)
            whole = (await read_stream(stack, url)).body
        await until(lambda: stack.upstream.predictions[0].completed_us is not None)
        await clock.advance(60)
        assert _parts(stack) == 1
        assert (await read_stream(stack, url)).body == whole
        async for _ in attempts():
            if not _parts(stack):
                break
            await clock.advance(600)
        reported = (await read_stream(stack, url)).body
        assert b'data: {"detail":"The data of this prediction has been removed."}\n' in reported
        assert reported.endswith(b'data: {"reason":"error"}\n\n')
        assert len(ids(reported)) == 2


def _parts(stack: Stack) -> int:
    with closing(sqlite3.connect(stack.database)) as db:
        (count,) = db.execute("SELECT count(*) FROM event_logs").fetchone()
        return int(count)
