"""Sessions and pools of connections to upstream, one pool for each kind of call.

Creates, polls, cancels and metadata share one pool. Uploads and downloads, which take as long as their callers take,
have pools of their own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import aiohttp

from gateway import __version__
from gateway.domain.ports.observers import UpstreamObserver
from gateway.errors import RateLimited


class Pool(StrEnum):
    """The pools, as metrics name them."""

    API = "api"
    UPLOADS = "uploads"
    DOWNLOADS = "downloads"


class ConnectionPool:
    """The connections of a session.

    A call waits for a free one here and not in aiohttp, which reports the end of that wait as a time-out of the host:
    it would be counted as a failure of upstream.
    """

    def __init__(self, name: Pool, session: aiohttp.ClientSession, size: int, observer: UpstreamObserver) -> None:
        self.name = name
        self.session = session
        self.size = size
        self._observer = observer
        self._free = asyncio.Semaphore(size)
        self.in_use = 0
        self.waiting = 0
        """Calls that wait for a connection."""

    @asynccontextmanager
    async def connection(self, patience_seconds: float) -> AsyncIterator[aiohttp.ClientSession]:
        """Hold a connection until the context ends. Raise `RateLimited` if none is free in time; nothing was sent."""
        await self.take(patience_seconds)
        try:
            yield self.session
        finally:
            self.give_back()

    async def take(self, patience_seconds: float) -> None:
        """Take a connection, until `give_back` is called. Raise `RateLimited` if none is free in time."""
        try:
            if self._free.locked():
                await self._wait(patience_seconds)
            else:
                await self._free.acquire()
        except TimeoutError as exc:
            self._observer.connection_refused(self.name)
            raise RateLimited(
                f"All {self.size} connections of the gateway to Replicate are in use.", retry_after=1
            ) from exc
        self.in_use += 1

    def give_back(self) -> None:
        """Give back a connection."""
        self.in_use -= 1
        self._free.release()

    async def _wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        finally:
            self.waiting -= 1


def new_session(
    max_connections: int, request_class: type[aiohttp.ClientRequest] = aiohttp.ClientRequest
) -> aiohttp.ClientSession:
    """Open a session for upstream, without cookies, and without proxies or netrc from the environment.

    Idle connections are closed before upstream closes them, so that a create rarely uses a closing connection.
    """
    connector = aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=15, ttl_dns_cache=60)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        headers={"User-Agent": f"replicate-gateway/{__version__}"},
        request_class=request_class,
    )
    # By default aiohttp retries reads and deletes once if a pooled connection is lost. Retries are decided in
    # `replicate.py`, and aiohttp has no public setting for it.
    session._retry_connection = False  # noqa: SLF001
    return session
