"""A gateway that is about to stop: every response closes its connection, so that the next request goes elsewhere."""

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
