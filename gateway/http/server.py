"""The HTTP server: aiohttp's, with problem documents for errors that occur before any middleware runs.

aiohttp responds to malformed requests in plain text. Here they get a problem document like every other error
(docs/architecture.md, Invariants 12), without a traceback.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import RequestHandler

from gateway.http import errors

KEEP_ALIVE_SECONDS = 75.0
# How long the unread rest of a request body is drained after the response, so that the client receives the response.
_LINGERING_SECONDS = 2.0
_LARGE_BODY = 64 * 1024


class Connection(RequestHandler):
    """The protocol of one connection."""

    on_lost: Callable[[], None] | None = None
    """Called when the connection is lost. Without it, a handler that only writes learns so at its next write."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Run `on_lost` after aiohttp's own handling."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Write a response. aiohttp keeps it until the next request of the connection; a large body is not kept."""
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
        if status >= 500:
            self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has started, so the connection must be closed")
        return errors.malformed(status)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log an exception, unless the client caused it by a malformed or incomplete body."""
        if not isinstance(sys.exc_info()[1], (web.RequestPayloadError, ConnectionError)):
            super().log_exception(*args, **kw)


async def _without_body(
    writing: Coroutine[Any, Any, tuple[web.StreamResponse, bool]],
) -> tuple[web.StreamResponse, bool]:
    written, is_lost = await writing
    if isinstance(written, web.Response):
        written.body = None
    return written, is_lost


class _Server(web.Server):
    """Creates a `Connection` for each connection."""

    def __init__(self, app: web.Application, loop: asyncio.AbstractEventLoop) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await app._handle(request)  # noqa: SLF001 - as below
            except web.HTTPException as exc:
                # aiohttp refuses an unknown Expect header before any middleware runs.
                return errors.respond_http(exc)
            except UnicodeEncodeError:
                # aiohttp fails to echo an Expect header that is not valid text.
                return errors.respond_http(web.HTTPExpectationFailed())

        # Application has no public way to use another protocol class.
        super().__init__(handle, request_factory=app._make_request, loop=loop)  # type: ignore[arg-type]  # noqa: SLF001
        self._event_loop = loop

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(
            self,
            loop=self._event_loop,
            access_log=None,  # type: ignore[arg-type]  # the middlewares write the access log
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
        )


class Runner(web.AppRunner):
    """Runs an application on `_Server`."""

    async def _make_server(self) -> web.Server:
        await super()._make_server()
        assert self.app is not None
        return _Server(self.app, asyncio.get_running_loop())


async def listen(app: web.Application, host: str, port: int, *, grace_seconds: float) -> tuple[Runner, int]:
    """Start serving an application.

    Return its runner, whose `cleanup` stops it within `grace_seconds`, and the port, which differs if `port` is 0.
    Raise `OSError` if the address cannot be bound.
    """
    runner = Runner(app, handle_signals=False, shutdown_timeout=grace_seconds)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    bound_port: int = runner.addresses[0][1]
    return runner, bound_port
