"""A reader: one caller's open event stream, and how far into the run's log it has been written.

Two hands write to it, never both. While it has taken everything it *is live*: its task sleeps, and the fan-out writes
to it what it writes to all. While it has not, its own task reads the log from its own cursor, a block at a time, each
when the block before has left. So what a slow reader costs is one block in its connection's buffer, and it delays
nobody.

Bytes go straight to the transport, in a frame that is made once for all readers: aiohttp's writer would make each of
them anew. That is sound because the response is told openly to be chunked (HTTP/1.1) or is ended by the connection's
end (1.0, as nginx speaks it), is not compressed, and its head has left before the first frame.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from gateway.http.response_body import ClientDisconnected
from gateway.http.server import Connection

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    # nginx would collect events into blocks otherwise.
    "X-Accel-Buffering": "no",
    # The URL is the permission: it must not leak into another site's logs.
    "Referrer-Policy": "no-referrer",
}


class Block(NamedTuple):
    """Whole events, ready to be written to any reader."""

    data: bytes
    chunk: bytes

    @classmethod
    def of(cls, data: bytes) -> "Block":
        """Frame bytes, of which there is one at least."""
        return cls(data, b"%x\r\n%b\r\n" % (len(data), data))


class Reader:
    """One open stream."""

    __slots__ = (
        "_began_at",
        "_connection",
        "_held",
        "_is_chunked",
        "_stalled",
        "_transport",
        "_turn",
        "_writer",
        "cursor",
        "first_event",
        "is_cut_off",
        "is_ending",
        "left_at",
        "response",
        "sent_bytes",
    )

    def __init__(
        self, response: web.StreamResponse, writer: AbstractStreamWriter, connection: Connection, *, is_chunked: bool
    ) -> None:
        assert connection.transport is not None
        self.response = response
        self.cursor = -1
        """The number of the event that comes next; before it is known, one that no event has."""
        self.first_event: Callable[[], None] | None = None
        """Told when the first event has been written, and then forgotten."""
        self.left_at: float | None = None
        """When the prediction ended for this caller, if that was before its run."""
        self.is_ending = False
        """Whether the gateway stops."""
        self.is_cut_off = False
        self.sent_bytes = 0
        """What was written to it, without the frames."""
        self._began_at: int | None = None
        self._writer = writer
        self._connection = connection
        self._transport = connection.transport
        self._is_chunked = is_chunked
        self._turn: asyncio.Future[None] | None = None
        self._held = self._stalled = 0

    @classmethod
    async def begin(cls, request: web.Request, *, patience_seconds: float) -> "Reader":
        """Send the head of the answer. Raise `ConnectionError` if the caller has gone."""
        response = web.StreamResponse(headers=HEADERS)
        is_chunked = request.version >= HttpVersion11
        if is_chunked:
            response.enable_chunked_encoding()
        connection, transport = request.protocol, request.transport
        assert isinstance(connection, Connection)
        if transport is None:
            raise ConnectionResetError
        # Anything that the kernel does not take at once counts as not taken.
        transport.set_write_buffer_limits(high=0)
        _expect_acknowledgement(transport, patience_seconds)
        writer = await response.prepare(request)
        if writer is None or transport.is_closing():
            raise ConnectionResetError
        reader = cls(response, writer, connection, is_chunked=is_chunked)
        connection.on_lost = reader.wake
        return reader

    @property
    def is_live(self) -> bool:
        """Whether it waits for news, with all that came before taken."""
        return self._turn is not None

    @property
    def told(self) -> int:
        """How many of the run's events were written to it."""
        return self.cursor - self._began_at if self._began_at is not None else 0

    def begin_at(self, cursor: int) -> None:
        """Count events from here on. Saying it again changes nothing."""
        if self._began_at is None:
            self._began_at = cursor

    def write(self, block: Block) -> None:
        """Write a block. A reader who does not take all of it at once, or has gone, is no longer live."""
        if not self._transport.is_closing():
            self.sent_bytes += len(block.data)
            self._transport.write(block.chunk if self._is_chunked else block.data)
            if not self._transport.get_write_buffer_size():
                return
        self.wake()

    def note_events(self) -> None:
        """Take note that events have been written."""
        if self.first_event is not None:
            self.first_event()
            self.first_event = None

    def wake(self) -> None:
        """Let its own task look what there is to do."""
        if self._turn is not None:
            if not self._turn.done():
                self._turn.set_result(None)
            self._turn = None

    async def turn(self) -> None:
        """Wait to be woken. Meanwhile the reader is live."""
        self._turn = asyncio.get_running_loop().create_future()
        try:
            await self._turn
        finally:
            self._turn = None

    async def taken(self) -> None:
        """Wait until all that was written has been taken. Raise `ClientDisconnected` if the caller has gone."""
        try:
            await self._writer.drain()
        except ConnectionError as exc:
            raise ClientDisconnected from exc
        if self._transport.is_closing():
            raise ClientDisconnected

    def beat(self, block: Block, patience: int) -> None:
        """Show a live reader that the line is up; cut off one that has taken nothing for `patience` beats."""
        if self.is_live:
            self.write(block)
            return
        held = self._transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if held and held == self._held else 0
        self._held = held
        if self._stalled >= patience:
            self.cut_off()

    def cut_off(self) -> None:
        """Close the connection without waiting for what was not taken."""
        self.is_cut_off = True
        self._transport.abort()

    async def end(self) -> None:
        """End the answer as one that is whole, and leave the connection as it was."""
        try:
            await self.response.write_eof()
        except ConnectionError as exc:
            raise ClientDisconnected from exc

    def let_go(self) -> None:
        """Leave the connection to what comes next on it."""
        self._connection.on_lost = None
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits()


def _expect_acknowledgement(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel give up a peer that acknowledges nothing for so long, where it can."""
    sock = transport.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT") and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
