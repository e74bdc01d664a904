"""A stream host that sends what a test says, and readers on raw sockets."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gateway.simulator import Simulator
from gateway.streams.rules.replay import frame
from tests.support.http_calls import PATIENCE
from tests.support.raw_server import RawServer, raw_server
from tests.support.samples import create
from tests.support.stack import Stack

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
HI = b": hi\n\n"
DONE = frame("done", "10:999999", "{}").raw


def event(number: int, data: str = "a") -> bytes:
    """Return the n-th event as bytes."""
    return frame("output", f"10:{number}", data).raw


def ids(body: bytes) -> list[bytes]:
    """Return the ids of a stream, in order."""
    return re.findall(rb"^id: (.*)$", body, re.MULTILINE)


@dataclass
class StreamHost:
    """The stream that the host serves."""

    said: list[bytes] = field(default_factory=list)
    is_over: bool = False
    """Whether a connection ends when everything was sent."""
    connections: int = 0
    """The number of connections so far."""
    open: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def say(self, *pieces: bytes) -> None:
        """Send more, each piece in a packet of its own as far as TCP allows."""
        async with self._news:
            self.said += pieces
            self._news.notify_all()

    async def play(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        """Serve one request, after the event that its Last-Event-ID names."""
        self.connections += 1
        self.open += 1
        try:
            found = re.search(rb"last-event-id: ([^\r]+)", head, re.IGNORECASE)
            place = 0
            if found:
                place = next(n + 1 for n, each in enumerate(self.said) if b"\nid: " + found[1] + b"\n" in each)
            writer.write(HEAD + HI)
            while True:
                for piece in self.said[place:]:
                    writer.write(piece)
                    await writer.drain()
                place = len(self.said)
                if self.is_over:
                    return
                async with self._news:
                    while place == len(self.said) and not self.is_over:
                        await self._news.wait()
        finally:
            self.open -= 1


@asynccontextmanager
async def stream_host(upstream: Simulator) -> AsyncIterator[tuple[StreamHost, RawServer]]:
    """Serve the streams of all predictions created from now on."""
    wire = StreamHost()
    async with raw_server(wire.play) as host:
        before, upstream.world.links.delivery = upstream.world.links.delivery, host.url
        yield wire, host
        upstream.world.links.delivery = before


async def stream_url(stack: Stack, key: str = "alpha", **given: Any) -> str:
    """Create a prediction with a long stream; return the stream's URL."""
    story: dict[str, Any] = {"prompt": "hi", "duration": 3600} | given
    reply = await create(stack, key=key, model="acme/storyteller", **story)
    assert reply.status == 201, reply.text
    url: str = reply.json["urls"]["stream"]
    return url


class SocketReader:
    """A reader on a raw socket, which reads when the test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = b""
        self.body = b""
        self.address: tuple[str, int] = writer.get_extra_info("sockname")
        self._reader = reader
        self._writer = writer
        self._tasted = b""

    async def until(self, *words: bytes) -> bytes:
        """Read until all the words were received."""
        async with asyncio.timeout(PATIENCE):
            while not all(word in self.body for word in words):
                if not await self.more():
                    raise AssertionError(f"the stream ended: {self.body[-300:]!r}")
        return self.body

    async def rest(self) -> bytes:
        """Read to the end. Fail if the body is truncated."""
        async with asyncio.timeout(PATIENCE):
            while await self.more():
                pass
        return self.body

    async def more(self) -> bool:
        """Read one chunk; return whether there was one."""
        line, found, rest = self._tasted.partition(b"\n")
        self._tasted = rest
        size = int(line if found else line + await self._reader.readline(), 16)
        self.body += await self._take(size)
        assert await self._take(2) == b"\r\n"
        return size > 0

    async def taste(self, size: int = 1) -> None:
        """Read exactly `size` bytes, wherever that ends in a chunk."""
        async with asyncio.timeout(PATIENCE):
            self._tasted += await self._reader.readexactly(size)

    async def _take(self, size: int) -> bytes:
        taken, self._tasted = self._tasted[:size], self._tasted[size:]
        return taken + await self._reader.readexactly(size - len(taken))

    def hang_up(self) -> None:
        """Close the connection."""
        self._writer.transport.abort()


@asynccontextmanager
async def open_stream(url: str, *, receive_buffer: int | None = None, **headers: str) -> AsyncIterator[SocketReader]:
    """Request a stream and read the head of the response."""
    parts = urlsplit(url)
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 65536)
    lines = [f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1", "Host: gateway.test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    caller = SocketReader(reader, writer)
    try:
        async with asyncio.timeout(PATIENCE):
            caller.head = await reader.readuntil(b"\r\n\r\n")
        yield caller
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
