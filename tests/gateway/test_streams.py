"""Streams: upstream's events, byte for byte, to whoever holds the ticket and to nobody else."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Fault
from tests.support.event_streams import output_texts, read_stream, read_stream_from_upstream, without_comments
from tests.support.http_calls import PAGE, Reply, ask, assert_problem, metrics_of, until_metric
from tests.support.polling import attempts, until
from tests.support.samples import create, finished
from tests.support.secret_scanner import SCANNER
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import ShiftedClock

TOKEN_BYTES = 20


async def made(stack: Stack, model: str = "acme/storyteller", key: str = "alpha", **given: object) -> str:
    """Create something that streams; return its stream's URL."""
    reply = await create(stack, key=key, model=model, **(given or {"prompt": "hi", "seed": 7}))
    assert reply.status == 201, reply.text
    url: str = reply.json["urls"]["stream"]
    return url


def assert_told_from(body: bytes, result: dict[str, Any]) -> None:
    """Fail unless a stream says the result: its logs, its outputs and `done`.

    These are numbered from nought in the second of its end, and the logs are of the second before.
    """
    second = int(times.parse(result["completed_at"]))
    assert output_texts(body) == result["output"]
    first, *parts = without_comments(body).split(b"\n\n")
    assert body.startswith(b": hi\n\n")
    assert first.startswith(b"event: logs\nid: %d:1000003\ndata: " % (second - 1))
    said = "\n".join(line.removeprefix(b"data:").removeprefix(b" ").decode() for line in first.split(b"\n")[2:])
    assert said == result["logs"]
    assert [part.split(b"\n")[1] for part in parts[:-1]] == [b"id: %d:%d" % (second, n) for n in range(len(parts) - 1)]
    assert body.count(b"event: logs") == 1
    assert body.count(b"event: done") == 1
    assert body.endswith(b"event: done\nid: %d:%d\ndata: {}\n\n" % (second, len(parts) - 2))


async def read_live(stack: Stack, url: str, go_on: asyncio.Event, **headers: str) -> Reply:
    """Read a stream of a run that stands still until the gateway reads it upstream; only its result is sent later."""
    reading = asyncio.create_task(read_stream(stack, url, **headers))
    await until(lambda: stack.upstream.requests.count("streams.get"))
    go_on.set()
    return await reading


@asynccontextmanager
async def held(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Keep a stream open."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        yield response


@pytest.mark.parametrize("model", ["acme/storyteller", "acme/frames", "acme/fail"])
async def test_stream_is_relayed_byte_for_byte_and_ends_after_done(gateway: Stack, model: str):
    """Leading spaces, empty tokens, line breaks, ids, logs: all as upstream wrote them, except its comments."""
    go_on = hold_runs(gateway.upstream, model)
    relayed = await read_live(gateway, url := await made(gateway, model), go_on)
    assert relayed.status == 200
    assert relayed.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert relayed.headers["X-Accel-Buffering"] == "no"
    assert "no-store" in relayed.headers["Cache-Control"]
    assert relayed.body.startswith(b": hi\n\n")
    assert without_comments(relayed.body) == without_comments(await read_stream_from_upstream(gateway))
    assert relayed.body.count(b"event: done") == 1
    late = await read_stream(gateway, url)
    assert late.body == relayed.body, "a late reader gets it all from the start"


async def test_stream_needs_no_key_and_forwards_none(gateway: Stack):
    """The ticket is the permission; a client that sends its key anyway does no harm."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    url = await made(gateway)
    assert (await read_live(gateway, url, go_on)).status == 200
    for authorization in ("", f"Bearer {gateway.keys['alpha']}", f"Token {gateway.keys['beta']}", "Bearer wrong"):
        assert (
            await read_stream(gateway, url, **({"Authorization": authorization} if authorization else {}))
        ).status == 200
    assert gateway.upstream.requests.authorized("delivery") == 0
    assert gateway.upstream.requests.count(origin="delivery") == 1, "however many read"


async def test_stream_works_under_all_three_prefixes(gateway: Stack):
    """The ticket is valid below each prefix."""
    url = await made(gateway)
    path = url.removeprefix(gateway.base_url)
    bodies = {(await read_stream(gateway, gateway.origin + prefix + path)).body for prefix in ("", "/v1", "/v1/v1")}
    assert len(bodies) == 1


async def test_last_event_id_resumes_a_stream(gateway: Stack):
    """A reader that lost the connection gets what comes after, by header, or by query for clients that cannot set
    one.
    """
    url = await made(gateway)
    whole = (await read_stream(gateway, url)).body
    events = [part for part in whole.split(b"\n\n") if b"id: " in part]
    third = events[2].split(b"id: ")[1].split(b"\n")[0].decode()
    for rest in (
        await read_stream(gateway, url, **{"Last-Event-ID": third}),
        await read_stream(gateway, f"{url}?last_event_id={third}"),
    ):
        assert rest.body.removeprefix(b": hi\n\n") == b"\n\n".join(events[3:]) + b"\n\n"
    for odd in ("x" * 500, "a\tb", ""):
        assert (await read_stream(gateway, url, **{"Last-Event-ID": odd})).body == whole


async def test_cancelled_predictions_stream_ends_with_its_reason(gateway: Stack):
    """Readers get `done` with the reason, late ones too, and upstream is not asked."""
    hold_runs(gateway.upstream, "acme/storyteller")
    reply = await create(gateway, model="acme/storyteller", prompt="hi")
    url = reply.json["urls"]["stream"]
    reading = asyncio.create_task(read_stream(gateway, url))
    await until(lambda: gateway.upstream.requests.count("streams.get"))
    await ask(gateway, "POST", f"/v1/predictions/{reply.json['id']}/cancel")
    assert b"event: done\n" in (await reading).body
    assert b'"reason":"canceled"' in (await reading).body.replace(b" ", b"")
    late = await read_stream(gateway, url)
    assert late.body.startswith(b": hi\n\nevent: done\nid: ")
    assert late.body.endswith(b'data: {"reason":"canceled"}\n\n')
    assert gateway.upstream.requests.count("streams.get") == 1


async def test_expired_ticket_is_404(open_gateway: OpenGateway):
    """After its time a ticket is like an unknown one."""
    clock = ShiftedClock()
    async with open_gateway(clock=clock, streams={"ticket_ttl_seconds": 100}) as stack:
        url = await made(stack)
        assert (await read_stream(stack, url)).status == 200
        clock.shift = 101
        assert_problem(await read_stream(stack, url), 404, origin=None)


async def test_stream_url_survives_a_restart(open_gateway: OpenGateway):
    """A page that kept the URL gets the same bytes after a deploy: ids, and the logs so far."""
    async with open_gateway() as stack:
        go_on = hold_runs(stack.upstream, "acme/storyteller")
        reply = (await create(stack, model="acme/storyteller", prompt="hi", seed=7)).json
        again = (await ask(stack, "GET", f"/v1/predictions/{reply['id']}")).json
        assert again["urls"] == reply["urls"]
        whole = (await read_live(stack, reply["urls"]["stream"], go_on)).body
        result = await finished(stack, reply["id"])
        assert output_texts(whole) == result["output"]
        assert b"event: logs" in whole
        keys = stack.keys
    async with open_gateway(keys=keys) as stack:
        path = reply["urls"]["stream"].partition("/v1/")[2]
        again = await read_stream(stack, f"{stack.base_url}/{path}")
        assert again.status == 200
        assert again.body == whole
        assert stack.upstream.requests.count("streams.get") == 1, "what was kept is not asked for again"


async def test_unread_stream_is_rebuilt_from_the_output(open_gateway: OpenGateway):
    """The stream was never read: the result is sent, with its logs, and the same after a restart."""
    async with open_gateway() as stack:
        reply = (await create(stack, model="acme/storyteller", prompt="hi", seed=7)).json
        result = await finished(stack, reply["id"])
        reported = (await read_stream(stack, reply["urls"]["stream"])).body
        assert_told_from(reported, result)
        keys = stack.keys
    async with open_gateway(keys=keys) as stack:
        path = reply["urls"]["stream"].partition("/v1/")[2]
        assert (await read_stream(stack, f"{stack.base_url}/{path}")).body == reported
        assert stack.upstream.requests.count("streams.get") == 0


async def test_number_of_streams_is_limited_per_team_and_in_total(open_gateway: OpenGateway):
    """A page that leaks readers blocks itself, not other teams; closing one makes room."""
    async with open_gateway(streams={"max_per_team": 2, "max_total": 3}) as stack, AsyncExitStack() as open_streams:
        hold_runs(stack.upstream, "acme/storyteller")
        alphas, betas = await made(stack), await made(stack, key="beta")
        first = await open_streams.enter_async_context(held(alphas))
        await open_streams.enter_async_context(held(alphas))
        refused = await read_stream(stack, alphas, Origin=PAGE)
        assert_problem(refused, 429)
        assert int(refused.headers["Retry-After"]) >= 1
        await open_streams.enter_async_context(held(betas))
        assert (await read_stream(stack, betas)).status == 429, "the total is reached"
        assert 'replicate_gateway_sse_streams{side="downstream"} 3.0' in await metrics_of(stack)
        first.close()
        async for _ in attempts():
            async with held(betas) as response:
                if response.status == 200:
                    break


async def test_stream_on_an_untrusted_host_is_not_fetched(gateway: Stack):
    """Even if upstream names it: the gateway is no way into the network. The reader gets the result instead."""
    gateway.upstream.world.links.delivery = gateway.upstream.delivery_url.replace("127.0.0.1", "localhost")
    reply = (await create(gateway, model="acme/storyteller", prompt="hi", seed=7, duration=10)).json
    streamed = await read_stream(gateway, reply["urls"]["stream"])
    assert streamed.status == 200
    assert_told_from(streamed.body, await finished(gateway, reply["id"]))
    assert gateway.upstream.requests.count(origin="delivery") == 0


@pytest.mark.parametrize(
    ("fault", "begins"),
    [
        (Fault("stream_cut", count=2), True),
        (Fault("stream_end", count=2), True),
        (Fault("stream_idle", count=1, seconds=0.1), True),
        (Fault("stream_content_type"), False),
        (Fault("html_error", operation="streams.get"), False),
        (Fault("drop_before", operation="streams.get"), False),
        (Fault("redirect", operation="streams.get"), False),
        (Fault("error", operation="streams.get", status=404), False),
    ],
    ids=lambda each: each.name if isinstance(each, Fault) else "",
)
async def test_broken_stream_is_completed_from_the_result(gateway: Stack, fault: Fault, begins: bool):
    """Each piece of the output once and in order, no partial event, `done` once and last; no traceback, no key."""
    gateway.upstream.faults.set(fault)
    go_on = hold_runs(gateway.upstream, "acme/storyteller", after=4)
    prediction = (await create(gateway, model="acme/storyteller", prompt="hi", seed=7)).json
    reply = await read_live(gateway, prediction["urls"]["stream"], go_on)
    assert reply.status == 200
    result = await finished(gateway, prediction["id"])
    assert gateway.upstream.requests.count("streams.get") >= 1
    if not begins:
        assert_told_from(reply.body, result)
        return
    events = [part for part in reply.body.removeprefix(b": hi\n\n").split(b"\n\n") if not part.startswith(b":")]
    assert events.pop() == b""
    assert all(re.match(rb"event: (output|logs|done)\nid: \d+:\d+\ndata:", event) for event in events)
    assert output_texts(reply.body) == result["output"]
    ids = [tuple(map(int, event.split(b"\n")[1][4:].split(b":"))) for event in events]
    assert ids == sorted(set(ids))
    assert [event.startswith(b"event: done\n") for event in events] == [False] * (len(events) - 1) + [True]


async def test_reader_that_disconnects_cancels_nothing(gateway: Stack):
    """A closed tab is no cancel."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller", after=1)
    reply = await create(gateway, model="acme/storyteller", prompt="hi")
    async with held(reply.json["urls"]["stream"]) as response:
        await response.content.read(TOKEN_BYTES)
    go_on.set()
    assert (await finished(gateway, reply.json["id"]))["status"] == "succeeded"
    assert not gateway.upstream.requests.count("predictions.cancel")
    await until_metric(gateway, 'replicate_gateway_sse_streams{side="downstream"} 0.0')


async def test_events_arrive_as_they_are_produced(gateway: Stack):
    """The first token arrives while the model still writes, not as one block at the end."""
    hold_runs(gateway.upstream, "acme/storyteller", after=1)
    url = await made(gateway)
    async with held(url) as response:
        received = b""
        while b"event: output" not in received:
            received += await response.content.readany()
        assert b"event: done" not in received
        assert gateway.upstream.predictions[0].completed_us is None


async def test_shutdown_ends_open_streams_at_once(open_gateway: OpenGateway):
    """Twenty readers do not delay a deploy; what they have received ends after a whole event."""
    async with AsyncExitStack() as readers:
        async with open_gateway() as stack:
            hold_runs(stack.upstream, "acme/storyteller")
            url = await made(stack)
            responses = [await readers.enter_async_context(held(url)) for _ in range(20)]
            heads = [await response.content.readany() for response in responses]
        assert stack.upstream.predictions[0].completed_us is None
        for head, response in zip(heads, responses, strict=True):
            body = head + await response.content.read()
            SCANNER.scan("a stream", body)
            assert body.startswith(b": hi\n\n")
            assert body.endswith(b"\n\nretry: 1000\n\n"), "ended by the gateway, not cut when its patience was over"


async def test_many_readers_of_one_stream_get_the_same_bytes(gateway: Stack):
    """A classroom watches one response."""
    url = await made(gateway, prompt="hi", duration=10)
    bodies = {
        (reply.status, reply.body) for reply in await asyncio.gather(*(read_stream(gateway, url) for _ in range(30)))
    }
    assert len(bodies) == 1
