"""A reader: the connection of one client to an event stream, and its position in the run's log.

Either the fan-out or the reader's own task writes to it, never both. A reader is *live* when the kernel has accepted
everything written so far: then its task waits, and the fan-out writes new events to it. Otherwise its own task reads
the log from the reader's cursor, one block at a time, each after the previous block was accepted. A slow reader
therefore costs one block of buffer in its connection, and delays no other reader.

Bytes go directly to the transport, in a frame that is built once for all readers; aiohttp's writer would build it for
each reader. This is correct because the response is either chunked (HTTP/1.1) or ends with the connection (HTTP/1.0,
which nginx uses by default), is not compressed, and its headers are sent before the first frame.
"""

import asyncio
import time
from typing import NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from gateway.domain.ports.observers import UpstreamObserver
from gateway.http.response_body import ClientDisconnected
from gateway.http.server import Connection, end_with_input, set_ack_timeout
from gateway.streams.rules.event_log import LONG

HEADERS = {
    # Clients that see no charset decode Latin-1.
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    # Turns off response buffering in nginx.
    "X-Accel-Buffering": "no",
    # The URL is the permission: it must not leak into another site's logs.
    "Referrer-Policy": "no-referrer",
}

_PIECE = LONG
"""Bytes of a long event that are written at once."""


class Block(NamedTuple):
    """Complete events, ready to be written to any reader. `chunk` is `data` with the framing of a chunked body."""

    data: bytes
    chunk: bytes

    @classmethod
    def of(cls, data: bytes) -> "Block":
        """Frame `data`, which must not be empty: an empty chunk would end the body."""
        return cls(data, b"%x\r\n%b\r\n" % (len(data), data))


class Reader:
    """One open event stream."""

    __slots__ = (
        "_connection",
        "_is_chunked",
        "_last_buffered",
        "_rest",
        "_stalled_heartbeats",
        "_start",
        "_transport",
        "_wakeup",
        "_writer",
        "canceled_at",
        "cursor",
        "is_aborted",
        "is_closing",
        "requested_at",
        "response",
        "sent_bytes",
    )

    def __init__(
        self, response: web.StreamResponse, writer: AbstractStreamWriter, connection: Connection, *, is_chunked: bool
    ) -> None:
        assert connection.transport is not None
        self.response = response
        self.cursor = -1
        """The number of the next event to write; -1 until it is known."""
        self.requested_at: float | None = None
        """When its request arrived, by `time.perf_counter`, until the first event was written."""
        self.canceled_at: float | None = None
        """When the prediction was canceled for this caller, if the run goes on."""
        self.is_closing = False
        """Whether the stream has to end: the gateway is shutting down, or the team was removed."""
        self.is_aborted = False
        """Whether the gateway closed the connection before the stream was complete."""
        self.sent_bytes = 0
        """Bytes of events and comments, without chunk framing."""
        self._start: int | None = None
        self._writer = writer
        self._connection = connection
        self._transport = connection.transport
        self._is_chunked = is_chunked
        self._wakeup: asyncio.Future[None] | None = None
        self._rest: memoryview | None = None
        """What is left of a long event, which the reader's own task writes."""
        self._last_buffered = self._stalled_heartbeats = 0

    @classmethod
    async def open(cls, request: web.Request, *, stall_seconds: float) -> "Reader":
        """Send the response headers and return the reader. Raise `ConnectionError` if the client has disconnected.

        Where the platform can, the kernel drops a connection whose peer acknowledges nothing for `stall_seconds`.
        """
        response = web.StreamResponse(headers=HEADERS)
        is_chunked = request.version >= HttpVersion11
        if is_chunked:
            response.enable_chunked_encoding()
        connection, transport = request.protocol, request.transport
        assert isinstance(connection, Connection)
        if transport is None:
            raise ConnectionResetError
        end_with_input(request)
        # `drain` then waits until the kernel has accepted every byte.
        transport.set_write_buffer_limits(high=0)
        set_ack_timeout(transport, stall_seconds)
        writer = await response.prepare(request)
        if writer is None or transport.is_closing():
            raise ConnectionResetError
        # They are sent, and a stream can be open for hours: 2 KiB of its memory.
        response.headers.clear()
        # Ends the timer for idle connections; aiohttp starts it again after the response.
        connection.keep_alive(True)
        reader = cls(response, writer, connection, is_chunked=is_chunked)
        connection.on_lost = reader.wake
        return reader

    @property
    def is_live(self) -> bool:
        """Whether the kernel has accepted everything so far, and the reader waits for new events."""
        return self._wakeup is not None

    @property
    def sent_events(self) -> int:
        """Number of the run's events that were written to it."""
        return self.cursor - self._start if self._start is not None else 0

    def start_at(self, cursor: int) -> None:
        """Count sent events from this cursor. Only the first call has an effect."""
        if self._start is None:
            self._start = cursor

    def write(self, block: Block) -> None:
        """Write a block, without waiting. If the kernel does not accept all of it, the reader is no longer live."""
        if not self._transport.is_closing():
            self.sent_bytes += len(block.data)
            self._transport.write(block.chunk if self._is_chunked else block.data)
            if not self._transport.get_write_buffer_size():
                return
        self.wake()

    def begin(self, event: bytes) -> None:
        """Begin a long event. The reader is live again when its own task has written it with `write_rest`."""
        self._rest = memoryview(event)
        self.wake()

    def write_rest(self) -> bool:
        """Write the next piece of a long event; return false if there is none."""
        if self._rest is None:
            return False
        self.write(Block.of(bytes(self._rest[:_PIECE])))
        self._rest = self._rest[_PIECE:] or None
        return True

    def report_first_event(self, observer: UpstreamObserver) -> None:
        """Report how long the caller waited for its first event, once."""
        if self.requested_at is not None:
            observer.first_event(time.perf_counter() - self.requested_at)
            self.requested_at = None

    def wake(self) -> None:
        """Let the reader's task go on, if it waits for what `live` returned."""
        if self._wakeup is not None:
            if not self._wakeup.done():
                self._wakeup.set_result(None)
            self._wakeup = None

    def live(self) -> asyncio.Future[None]:
        """Become live, so that the fan-out may write to it. Return what is done when `wake` is called.

        Not a coroutine: thousands of readers wait here, and each would keep one more frame.
        """
        self._wakeup = asyncio.get_running_loop().create_future()
        return self._wakeup

    async def drain(self) -> None:
        """Wait until the kernel has accepted everything. Raise `ClientDisconnected` if the connection is closed."""
        try:
            await self._writer.drain()
        except ConnectionError as exc:
            raise ClientDisconnected from exc
        if self._transport.is_closing():
            raise ClientDisconnected

    def heartbeat(self, block: Block, max_stalled: int) -> None:
        """Write a heartbeat to a live reader; abort one that accepted no data for `max_stalled` heartbeats."""
        if self.is_live:
            self.write(block)
            return
        buffered = self._transport.get_write_buffer_size()
        self._stalled_heartbeats = self._stalled_heartbeats + 1 if buffered and buffered == self._last_buffered else 0
        self._last_buffered = buffered
        if self._stalled_heartbeats >= max_stalled:
            self.abort()

    def abort(self) -> None:
        """Close the connection and discard its buffer."""
        self.is_aborted = True
        self._transport.abort()

    async def finish(self) -> None:
        """Complete the response. The connection stays open. Raise `ClientDisconnected` if that fails."""
        try:
            await self.response.write_eof()
        except ConnectionError as exc:
            raise ClientDisconnected from exc

    def release(self) -> None:
        """Restore the connection's settings, for the next request on it."""
        self._connection.on_lost, self._connection.ends_with_input = None, False
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits()
