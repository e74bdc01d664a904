"""The HTTP server around the application: what it does before any handler is reached.

aiohttp answers bytes that are not a request by itself, in plain text. Here they get a problem document like everything
else (docs/architecture.md, Invariants 12), and no traceback.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import RequestHandler

from gateway.http import errors

KEEP_ALIVE_SECONDS = 75.0
# How long the rest of a body is read that nobody wants, so that its sender sees the answer.
_PATIENCE_SECONDS = 2.0


class Connection(RequestHandler):
    """One connection."""

    on_lost: Callable[[], None] | None = None
    """What a handler that only writes wants done when its caller has gone: aiohttp would tell it at its next write."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take note that the connection has gone."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what a handler did not catch."""
        del message
        if isinstance(exc, ContentEncodingError):
            # A coding that aiohttp knows of, but cannot undo: the header alone was read.
            status = 415
        if status >= 500:
            self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; it can only be cut")
        return errors.malformed(status)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a defect of ours. A body that is no good, or that breaks off, is its sender's."""
        if not isinstance(sys.exc_info()[1], (web.RequestPayloadError, ConnectionError)):
            super().log_exception(*args, **kw)


class _Server(web.Server):
    """Makes the protocol of each connection."""

    def __init__(self, app: web.Application, loop: asyncio.AbstractEventLoop) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await app._handle(request)  # noqa: SLF001 - as below
            except web.HTTPException as exc:
                # aiohttp refuses an unknown Expect before any middleware is reached.
                return errors.respond_http(exc)
            except UnicodeEncodeError:
                # The same, when it fails to repeat an Expect that is no text.
                return errors.respond_http(web.HTTPExpectationFailed())

        # Application offers no public way to put a protocol of one's own beneath it.
        super().__init__(handle, request_factory=app._make_request, loop=loop)  # type: ignore[arg-type]  # noqa: SLF001
        self._event_loop = loop

    def __call__(self) -> Connection:
        """Make the protocol of one connection."""
        return Connection(
            self,
            loop=self._event_loop,
            access_log=None,  # type: ignore[arg-type]  # the middlewares keep the log
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=_PATIENCE_SECONDS,
        )


class Runner(web.AppRunner):
    """Runs an application on `_Server`."""

    async def _make_server(self) -> web.Server:
        await super()._make_server()
        assert self.app is not None
        return _Server(self.app, asyncio.get_running_loop())


async def listen(app: web.Application, host: str, port: int, *, grace_seconds: float) -> tuple[Runner, int]:
    """Serve an application; return its runner, to be cleaned up, and the port that was taken."""
    runner = Runner(app, handle_signals=False, shutdown_timeout=grace_seconds)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    taken: int = runner.addresses[0][1]
    return runner, taken
