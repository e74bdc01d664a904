"""Read event streams, from the gateway or directly from upstream, and parse them."""

import aiohttp
import httpx
import httpx_sse

from tests.support.http_calls import Reply, ask
from tests.support.stack import Stack


async def read_stream(stack: Stack, url: str, **headers: str) -> Reply:
    """Read a stream to its end, without a key."""
    return await ask(stack, "GET", url, key=None, headers={"Accept": "text/event-stream", **headers})


async def read_stream_from_upstream(stack: Stack, number: int = -1) -> bytes:
    """Read the stream of a prediction directly from upstream."""
    path = stack.upstream.predictions[number].stream_path
    assert path is not None
    received = b""
    async with aiohttp.ClientSession() as session, session.get(stack.upstream.delivery_url + path) as response:
        async for chunk in response.content.iter_any():
            received += chunk
            if b"event: done" in received and received.endswith(b"\n\n"):
                return received
    return received


def without_comments(body: bytes) -> bytes:
    """Remove comments: the gateway and upstream send their own heartbeats."""
    return b"".join(part + b"\n\n" for part in body.split(b"\n\n")[:-1] if not part.startswith(b":"))


def output_texts(body: bytes) -> list[str]:
    """Return the data of each output event of a stream."""
    outputs = [part.decode() for part in body.split(b"\n\n") if part.startswith(b"event: output\n")]
    return ["\n".join(line[5:].removeprefix(" ") for line in part.split("\n")[2:]) for part in outputs]


def parse_events(raw: bytes) -> list[tuple[str, str, str]]:
    """Parse a stream with httpx-sse: (event, id, data) of each event."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=raw)
    events = [(each.event, each.id, each.data) for each in httpx_sse.EventSource(response).iter_sse()]
    return [each for each in events if each[0] != "message"]  # httpx-sse reports a comment as an empty event
