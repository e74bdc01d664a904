"""The request class of the public listener."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

IS_DRAINING: web.AppKey[Callable[[], bool]] = web.AppKey("is_draining")
"""Whether the process is about to stop: then every response closes its connection."""


class Request(web.Request):
    """A request that `pipeline.py` handles: aiohttp's, without its router and its application signals.

    A request has about 25 reads of its values, many of which are absent. aiohttp's `get` and `in` find that out by an
    exception in Python code, which costs ten times as much as the look-up.
    """

    ATTRS = web.Request.ATTRS | {"app", "match_info", "add_headers", "state"}

    app: web.Application = None  # type: ignore[assignment]  # every request has its own; this replaces a property
    """What the handlers call. aiohttp reads it from the result of its router."""
    match_info: Mapping[str, str] = {}  # type: ignore[assignment]  # as above
    """The parts of the path that the route names."""
    add_headers: Callable[["Request", web.StreamResponse], None] | None = None
    """Adds the common headers to a response. The pipeline sets it; it does not see what is no HTTP request."""

    def __init__(
        self,
        message: Any,
        payload: Any,
        protocol: Any,
        writer: Any,
        task: Any,
        *,
        loop: asyncio.AbstractEventLoop,
        app: web.Application,
    ) -> None:
        self.app = app
        self.state: dict[Any, Any] = {}
        """The values themselves: `request[KEY]` reads them too. For code that runs for every request."""
        super().__init__(message, payload, protocol, writer, task, loop, state=self.state)

    @property
    def keep_alive(self) -> bool:  # not cached as in aiohttp: it can change before the response
        """Return whether the connection stays open after the response.

        A process that is about to stop says `Connection: close`, so that the next request opens a connection to another
        one. It closes what is idle in the end, and a request that is on its way by then would be lost.
        """
        return not self._message.should_close and not self.app[IS_DRAINING]()

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value of the request."""
        return self.state.get(key, default)

    def __contains__(self, key: object) -> bool:
        """Return whether the request has a value."""
        return key in self.state

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Add the common headers. aiohttp calls this where it sends the signal `on_response_prepare` otherwise."""
        if self.add_headers is not None:
            self.add_headers(self, response)


Handle = Callable[[Request], Awaitable[web.StreamResponse]]
"""Responds to a request."""
