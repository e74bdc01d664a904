"""A gateway that is about to stop: every response closes its connection, so that the next request goes elsewhere."""

import asyncio
import json
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.support.polling import until
from tests.support.samples import create
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway
from tests.support.system_clocks import PausedClock
from tests.support.upstream import creates, version_of


@pytest.mark.parametrize(
    "path", ["/v1/predictions/{id}", "/v1/predictions", "/v1/predictions/unknown", "/readyz", "/x"]
)
async def test_responses_close_their_connections_while_it_drains(open_gateway: OpenGateway, path: str):
    """Clients and proxies keep connections: without this, their next request could find one that closes."""
    async with open_gateway() as stack, stack.caller() as alpha:
        prediction = await create(stack, model="acme/storyteller", prompt="hi", max_tokens=2)
        async with alpha.get(path.format(id=prediction.json["id"])) as answer:
            assert "Connection" not in answer.headers
        stack.running.retire()
        async with alpha.get(path.format(id=prediction.json["id"])) as answer:
            assert answer.headers["Connection"] == "close"
            assert answer.headers.getall("Content-Length") == [str(len(await answer.read()))]


async def test_creates_and_streams_close_their_connections_while_it_drains(open_gateway: OpenGateway):
    """They are served to their end all the same."""
    async with open_gateway() as stack, stack.caller() as alpha:
        stack.running.retire()
        prediction = await create(stack, model="acme/storyteller", prompt="hi", max_tokens=2)
        assert (prediction.status, prediction.headers["Connection"]) == (201, "close")
        async with alpha.get(prediction.json["urls"]["stream"], timeout=aiohttp.ClientTimeout(total=None)) as stream:
            assert stream.headers["Connection"] == "close"
            assert b"event: done\n" in await stream.read()


async def test_request_after_a_stream_that_was_ended_is_answered(open_gateway: OpenGateway):
    """The client may send it on the connection of the stream, whose response did not say that it closes."""
    async with AsyncExitStack() as closed_last:
        async with open_gateway() as stack:
            hold_runs(stack.upstream, "acme/storyteller")
            alpha = await closed_last.enter_async_context(stack.caller())
            prediction = (await create(stack, model="acme/storyteller", prompt="hi")).json
            opened = asyncio.Event()

            async def read_on() -> tuple[bytes, str]:
                async with alpha.get(prediction["urls"]["stream"]) as stream:
                    await stream.content.readline()
                    opened.set()
                    said = await stream.read()
                async with alpha.get(f"/v1/predictions/{prediction['id']}") as answer:
                    assert (await answer.json())["id"] == prediction["id"]
                    return said, answer.headers["Connection"]

            reading = asyncio.create_task(read_on())
            await opened.wait()
            stack.running.retire()
            said, connection = await reading
        assert said.endswith(b"retry: 1000\n\n")
        assert connection == "close"


async def test_request_whose_body_arrives_late_is_answered(open_gateway: OpenGateway):
    """The listeners wait for it, when everybody who waited has been answered."""
    async with AsyncExitStack() as ending:
        stack = await ending.enter_async_context(open_gateway())
        version = version_of(stack.upstream, "acme/storyteller")
        body = json.dumps({"version": version, "input": {"prompt": "late"}}).encode()
        parts = urlsplit(stack.base_url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.keys['alpha']}\r\n"
        writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:9])
        waits = asyncio.create_task(create(stack, headers={"Prefer": "wait=60"}))
        await until(lambda: creates(stack.upstream) == 1)
        stopping = asyncio.create_task(ending.aclose())
        assert (await waits).json["status"] in ("starting", "processing")
        for place in range(9, len(body)):
            writer.write(body[place : place + 1])
            # The gateway runs on the same loop: it has all the turns that it needs to close its listeners.
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
        await stopping
        assert answer.startswith(b"HTTP/1.1 201 ")


async def test_create_that_waits_for_the_accounts_turn_gets_it_while_the_gateway_stops(open_gateway: OpenGateway):
    """It was admitted. A client does not repeat a create that fails."""
    upstream, clock = {"creates_per_minute": 120}, PausedClock()
    async with open_gateway(upstream=upstream, teams={"alpha": {"max_wait_seconds": 10}}, clock=clock) as stack:
        made = [
            asyncio.create_task(create(stack, model="acme/storyteller", prompt=f"{number}", max_tokens=2))
            for number in range(22)
        ]
        await until(lambda: creates(stack.upstream) >= 20)
        assert not all(each.done() for each in made)
        clock.resume()
    assert {each.status for each in await asyncio.gather(*made)} == {201}
