"""A gateway that is about to stop: every response closes its connection, so that the next request goes elsewhere."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.support.samples import create
from tests.support.stack import OpenGateway


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
            alpha = await closed_last.enter_async_context(stack.caller())
            prediction = (await create(stack, model="acme/storyteller", prompt="hi", duration=600)).json
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
