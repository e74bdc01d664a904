"""The HTTP server: aiohttp's, with problem documents for what is no HTTP request.

aiohttp responds to malformed requests in plain text. Here they get a problem document like every other error
(docs/architecture.md, Invariants 12), without a traceback.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.http import errors
from gateway.http.request import Handle, Request

KEEP_ALIVE_SECONDS = 75.0
MAX_FIELD_BYTES = 64 * 1024
"""Longest header field that the parser takes. `max_header_bytes` bounds the sum of all, with an answer that pages can
read; what exceeds this is refused by the parser, before the request is known."""
_MAX_PART_FIELD_BYTES = 8190
# How long the unread rest of a request body is drained after the response, so that the client receives the response.
_LINGERING_SECONDS = 2.0
_HALF_CLOSED_SECONDS = 0.1
_RECEIVED_SECONDS = 0.02
"""Time between two looks, during a shutdown, whether requests have arrived completely."""
_ACK_SECONDS = 75.0
"""Longest time in which a client may take nothing of a response. Streams have a bound of their own."""
_MAX_HEAD_BYTES = 256 * 1024
"""Bytes of the head of a request that is not complete, far above `max_header_bytes`. Nobody knows yet who sends it."""
_HEAD_REFUSED = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LARGE_BODY = 64 * 1024


class Connection(RequestHandler):
    """The protocol of one connection."""

    on_lost: Callable[[], None] | None = None
    """Called when the connection is lost. Without it, a handler that only writes learns so at its next write."""
    has_input_ended = False
    """Whether the client has closed its half of the connection. It may still read, as after `nc -N`."""
    ends_with_input = False
    """Whether the end of the client's input ends the connection. Set for event streams: their readers close."""

    _departure_listeners: tuple[Callable[[], None], ...] = ()

    _head_bytes = 0
    """Bytes received of a head that is not complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the time in which the client takes nothing: aiohttp waits forever to have a response accepted."""
        super().connection_made(transport)
        set_ack_timeout(transport, _ACK_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Parse what was received. Refuse a head that grows without an end: the parser bounds its fields only."""
        super().data_received(data)
        if self._waiter is None or self._waiter.done():
            self._head_bytes = 0
            return
        # It waits for a request still.
        self._head_bytes += len(data)
        if self._head_bytes > _MAX_HEAD_BYTES and self.transport is not None:
            self.transport.write(_HEAD_REFUSED)
            self.transport.close()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp's returns None always
        """Keep a half-closed connection open while a request on it has no response yet (RFC 9112, 9.6).

        TLS has no half-closed connections in asyncio, and a client that closes its half between requests is gone.
        """
        self.has_input_ended = True
        self._announce_departure()
        self._close_after_last_response()
        if self.ends_with_input or self.ssl_context is not None or self._is_idle():
            return None
        # Not at once: the request can be between the parser and its handler.
        self._loop.call_later(_HALF_CLOSED_SECONDS, self._close_if_useless)
        return True

    def _close_after_last_response(self) -> None:
        """Let the half-closed connection end with the response to the last request that it has received."""
        if not self._messages and not self._is_idle():
            self.close()

    def close_if_idle(self) -> None:
        """Close the connection unless a request has arrived on it, or a part of its head."""
        if self._is_idle() and not self._head_bytes:
            self.force_close()

    @property
    def is_receiving(self) -> bool:
        """Whether a part of a request has arrived, and the rest has not."""
        if self._is_idle():
            return bool(self._head_bytes)
        request = self._current_request
        return request is not None and not request.content.is_eof() and request.content.exception() is None

    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _close_if_useless(self) -> None:
        """Close the half-closed connection if it waits for a request, or for the rest of a body, that cannot come."""
        request = self._current_request
        if self.transport is not None and (self._is_idle() or (request is not None and not request.content.is_eof())):
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Run `on_lost` after aiohttp's own handling."""
        super().connection_lost(exc)
        self._announce_departure()
        if self.on_lost is not None:
            self.on_lost()

    def add_departure_listener(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the connection is lost or the client closes its half of it; return what removes it."""
        self._departure_listeners = (*self._departure_listeners, callback)

        def remove() -> None:
            self._departure_listeners = tuple(each for each in self._departure_listeners if each is not callback)

        return remove

    def _announce_departure(self) -> None:
        for callback in self._departure_listeners:
            callback()

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Write a response. aiohttp keeps it until the next request of the connection; a large body is not kept."""
        if self.has_input_ended:
            self._close_after_last_response()
        writing = super().finish_response(request, resp, start_time)
        is_large = isinstance(resp, web.Response) and isinstance(resp.body, bytes) and len(resp.body) > _LARGE_BODY
        return _without_body(writing) if is_large else writing

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return a problem document for a malformed request or an uncaught exception.

        Raise `ConnectionError`, which closes the connection, if a response has already started.
        """
        del message
        if isinstance(exc, ContentEncodingError):
            # A content coding that aiohttp recognises but cannot decode. Raised when the header is read.
            status = 415
        elif isinstance(exc, LineTooLong):
            # The line of a request has a limit of its own, which is 8190 bytes.
            status = 431 if exc.args[1] == MAX_FIELD_BYTES else 414
        if status >= 500:
            self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has started, so the connection must be closed")
        return errors.malformed(status)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log an exception, unless the client caused it by a malformed or incomplete body."""
        if not isinstance(sys.exc_info()[1], (web.RequestPayloadError, ConnectionError)):
            super().log_exception(*args, **kw)


def set_ack_timeout(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Let the kernel drop a connection whose peer takes no data for `seconds`, on platforms that can."""
    sock = transport.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT") and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def end_with_input(request: web.BaseRequest) -> None:
    """Let the end of the client's input end the connection, for a response that is an event stream.

    Raise `ConnectionResetError` if the input has ended already: its reader has left.
    """
    connection = request.protocol
    assert isinstance(connection, Connection)
    if connection.has_input_ended:
        raise ConnectionResetError
    connection.ends_with_input = True


async def _without_body(
    writing: Coroutine[Any, Any, tuple[web.StreamResponse, bool]],
) -> tuple[web.StreamResponse, bool]:
    written, is_lost = await writing
    if isinstance(written, web.Response):
        written.body = None
    return written, is_lost


class _Server(web.Server):
    """Creates a `Connection` for each connection."""

    def __init__(
        self, handle: Callable[[Any], Awaitable[web.StreamResponse]], make_request: Callable[..., Any]
    ) -> None:
        self._event_loop = asyncio.get_running_loop()
        super().__init__(handle, request_factory=make_request, loop=self._event_loop)

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        connection = Connection(
            self,
            loop=self._event_loop,
            access_log=None,  # type: ignore[arg-type]  # the pipeline writes the access log
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            max_field_size=MAX_FIELD_BYTES,
        )
        # From here on it bounds the headers of the parts of a form.
        connection.max_field_size = _MAX_PART_FIELD_BYTES
        return connection


class Runner(web.AppRunner):
    """Runs an application on `_Server`."""

    def __init__(self, app: web.Application, handle: Handle | None, *, grace_seconds: float) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=grace_seconds)
        self._handle = handle

    async def close_idle(self) -> None:
        """Stop listening, and close the connections on which no request has arrived. Requests in progress go on.

        aiohttp's `cleanup` ignores what such connections receive, and closes them only when all streams have ended.
        """
        for site in tuple(self.sites):
            await site.stop()
        # What the kernel has received by now is parsed first: after one turn of the loop, and handled after the next.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for connection in self._connections():
            connection.close_if_idle()

    async def receive(self, seconds: float) -> None:
        """Wait until the requests that are arriving have arrived, for `seconds` at most.

        aiohttp's `cleanup` ignores what arrives later, and waits in vain for the handlers of these requests.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # aiohttp tells nobody that a body has failed.
                while any(each.is_receiving for each in self._connections()):  # noqa: ASYNC110
                    await asyncio.sleep(_RECEIVED_SECONDS)

    def _connections(self) -> list[Connection]:
        return [] if self.server is None else [each for each in self.server.connections if isinstance(each, Connection)]

    async def _make_server(self) -> web.Server:
        await super()._make_server()
        assert self.app is not None
        if self._handle is not None:
            return _Server(self._handle, partial(Request, loop=asyncio.get_running_loop(), app=self.app))
        # Application has no public way to use another protocol class.
        return _Server(partial(_handle_by_routes, self.app), self.app._make_request)  # noqa: SLF001


async def _handle_by_routes(app: web.Application, request: web.Request) -> web.StreamResponse:
    """Handle a request by the routes and middlewares of an application."""
    try:
        return await app._handle(request)  # noqa: SLF001 - as above
    except web.HTTPException as exc:
        # aiohttp refuses an unknown Expect header before any middleware runs.
        return errors.respond_http(exc)
    except UnicodeEncodeError:
        # aiohttp fails to echo an Expect header that is not valid text.
        return errors.respond_http(web.HTTPExpectationFailed())


async def listen(
    app: web.Application,
    host: str,
    port: int,
    *,
    grace_seconds: float,
    handle: Handle | None = None,
    reuse_port: bool = False,
) -> tuple[Runner, int]:
    """Start serving an application.

    `handle` handles the requests instead of the application's routes and middlewares, if it is given. With
    `reuse_port`, other processes can listen on the port, too (SO_REUSEPORT).

    Return its runner, whose `cleanup` stops it within `grace_seconds`, and the port, which differs if `port` is 0.
    Raise `OSError` if the address cannot be bound.
    """
    runner = Runner(app, handle, grace_seconds=grace_seconds)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024, reuse_port=reuse_port or None)
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    bound_port: int = runner.addresses[0][1]
    return runner, bound_port


async def listen_on_socket(app: web.Application, path: Path, *, grace_seconds: float) -> Runner:
    """Start serving an application on a Unix socket. Return its runner, as `listen` does."""
    runner = Runner(app, None, grace_seconds=grace_seconds)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
