"""Readers of event streams on every node, while something happens to one of them.

A reader whose connection ends goes on at the next node with `Last-Event-ID`, as `EventSource` behind a load balancer.
Whatever happens, each of them gets upstream's stream, byte for byte.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from gateway.simulator import Simulator
from tests.support.event_streams import without_comments
from tests.support.polling import attempts
from tests.support.upstream import version_of

MODEL = "acme/storyteller"
_TOKENS = 40
_RETRY = b"retry: 1000\n\n"


class Nodes(Protocol):
    """The nodes, as far as readers ask."""

    @property
    def upstream(self) -> Simulator:
        """What they call."""
        ...

    def caller(self, number: int) -> aiohttp.ClientSession:
        """Return a session with a node."""
        ...


@dataclass
class Reading:
    """What one reader got of a run's stream."""

    prompt: str
    node: int
    """On which it began."""
    body: bytes = b""
    connections: int = 0
    has_begun: bool = False
    """Whether a node has answered it."""

    @property
    def is_over(self) -> bool:
        """Whether it has the end."""
        return b"event: done\n" in self.body and self.body.endswith(b"\n\n")


def request_of(upstream: Simulator, prompt: str) -> dict[str, Any]:
    """Return the body of a create of a run that streams."""
    return {
        "version": version_of(upstream, MODEL),
        "input": {"prompt": prompt, "max_tokens": _TOKENS},
        "stream": True,
    }


async def read_everywhere(nodes: Nodes, readings: Sequence[Reading], url: str) -> None:
    """Read a stream to its end: one reader on each node."""
    path = "/v1/" + urlsplit(url).path.partition("/v1/")[2]
    await asyncio.gather(*(_read(nodes, len(readings), each, path) for each in readings))


async def _read(nodes: Nodes, count: int, reading: Reading, path: str) -> None:
    node = reading.node
    async for _ in attempts(pause=0.05):
        headers = {"Accept": "text/event-stream"}
        if ids := re.findall(rb"^id: (.*)$", reading.body, re.MULTILINE):
            headers["Last-Event-ID"] = ids[-1].decode()
        reading.connections += 1
        received = b""
        try:
            async with nodes.caller(node) as session, session.get(path, headers=headers) as response:
                assert response.status in (200, 503), f"a stream was refused: {response.status}"
                if response.status == 200:
                    reading.has_begun = True
                    async for chunk in response.content.iter_any():
                        received += chunk
        except (aiohttp.ClientError, TimeoutError):
            # The node has died.
            pass
        # What a parser takes: events that are complete.
        whole = received[: received.rfind(b"\n\n") + 2] if b"\n\n" in received else b""
        reading.body += without_comments(whole.replace(_RETRY, b""))
        if reading.is_over:
            return
        node = (node + 1) % count


async def check_streams(upstream: Simulator, readings: list[Reading]) -> None:
    """Compare what readers got with upstream's streams."""
    prompts = {each.prompt for each in readings}
    paths = {each.input["prompt"]: each.stream_path for each in upstream.predictions if each.input["prompt"] in prompts}
    said: dict[str, bytes] = {}
    async with aiohttp.ClientSession() as session:
        for prompt, path in paths.items():
            assert path is not None
            async with session.get(upstream.delivery_url + path) as response:
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if b"event: done\n" in body and body.endswith(b"\n\n"):
                        break
            said[prompt] = without_comments(body)
    for each in readings:
        assert each.body == said[each.prompt], (
            f"the stream of {each.prompt} from node {each.node} on, over {each.connections} connections, differs: "
            f"{each.body!r} instead of {said[each.prompt]!r}"
        )
